//! The delegation to the IPAM plugin.
//!
//! A process takes about a millisecond to start, and the kernel about as long to make or remove a
//! veth pair. So the IPAM plugin is started first and handed its configuration when it is time:
//! at once on ADD, and on DEL when the interface is gone.

use weft_cni::delegate::{Delegate, Running};
use weft_cni::{CniError, CniResult, Request, Verb, code};

/// The IPAM plugin that the configuration names.
#[derive(Debug)]
pub struct Ipam {
    delegate: Delegate,
}

impl Ipam {
    /// Looks for the plugin that `request` names under `ipam`, if it names one: without an IPAM the
    /// interface gets no address.
    pub fn of(request: &Request) -> Result<Option<Self>, CniError> {
        let Some(plugin) = request.ipam_type()? else { return Ok(None) };
        let delegate = Delegate::find(&plugin, request.environment())?;
        Ok(Some(Self { delegate }))
    }

    /// Starts the plugin for the verb of `request`. It waits until it is [sent](Running::send) its
    /// configuration.
    pub fn start(&self, request: &Request) -> Result<Running, CniError> {
        self.delegate.spawn(request.verb())
    }

    /// Runs the plugin from start to end, for a verb without a result.
    pub fn call(&self, request: &Request) -> Result<(), CniError> {
        let mut running = self.start(request)?;
        running.send(request.raw())?;
        running.wait()
    }

    /// Frees what an ADD that failed later on may have reserved.
    pub fn undo_add(&self, request: &Request) -> Result<(), CniError> {
        let mut running = self.delegate.spawn(Verb::Del)?;
        running.send(request.raw())?;
        running.wait()
    }
}

/// The result of the IPAM plugin, which must name an address.
pub(crate) fn addresses(running: Running, request: &Request) -> Result<CniResult, CniError> {
    let result = running.wait_result(request.version())?;
    if result.ips.is_empty() {
        let msg = "the IPAM plugin returned no address (IPAM plugin returned missing IP config)";
        return Err(CniError::new(code::DELEGATE, msg));
    }
    Ok(result)
}
