//! The IPAM plugin, in this process or in its own.
//!
//! `weft-ipam` is this very program under another name. Where the file that `CNI_PATH` leads to is
//! the one that this process runs, its library is called instead of a process: the same request,
//! the same result, and a process less for each container. Any other plugin, a copy of this one
//! and another build of it are started as the specification says.
//!
//! A process takes about a millisecond to start. So it is started first and handed its
//! configuration when it is time.

use weft_cni::delegate::{Delegate, Running};
use weft_cni::{CniError, CniResult, Request, Verb, code};
use weft_ipam::request::Call;

/// The IPAM plugin that the configuration names.
#[derive(Debug)]
pub enum Ipam {
    /// This very program.
    Own,
    /// Another program.
    Other(Delegate),
}

/// The IPAM plugin, ready to be called.
#[derive(Debug)]
pub enum Started {
    /// In this process.
    Own,
    /// A process that waits for its configuration.
    Other(Running),
}

impl Ipam {
    /// Looks for the plugin that `request` names under `ipam`, if it names one: without an IPAM the
    /// interface gets no address.
    pub fn of(request: &Request) -> Result<Option<Self>, CniError> {
        let Some(plugin) = request.ipam_type()? else { return Ok(None) };
        let delegate = Delegate::find(&plugin, request.environment())?;
        let is_own = delegate.is_this_program();
        if is_own && plugin != weft_ipam::NAME {
            // It would start itself without end.
            let msg = format!(
                "ipam.type {plugin} is the main plugin itself; the IPAM plugin is called {}",
                weft_ipam::NAME
            );
            return Err(CniError::new(code::INVALID_CONFIG, msg));
        }
        Ok(Some(if is_own { Self::Own } else { Self::Other(delegate) }))
    }

    /// Starts the plugin for the verb of `request`.
    pub fn start(&self, request: &Request) -> Result<Started, CniError> {
        Ok(match self {
            Self::Own => Started::Own,
            Self::Other(delegate) => Started::Other(delegate.spawn(request.verb())?),
        })
    }

    /// Calls the plugin from start to end, for a verb without a result.
    pub async fn call(&self, request: &Request, known: Option<Call>) -> Result<(), CniError> {
        self.start(request)?.finish(request, known).await
    }

    /// Frees what an ADD that failed later on may have reserved.
    pub async fn undo_add(&self, request: &Request) -> Result<(), CniError> {
        self.call(&request.with_verb(Verb::Del), None).await
    }
}

impl Started {
    /// Has the plugin do a verb without a result. The plugin in this process need not read again
    /// what is `known` of the call.
    pub async fn finish(self, request: &Request, known: Option<Call>) -> Result<(), CniError> {
        match self {
            Self::Own => weft_ipam::call(request, known).await.map(drop),
            Self::Other(mut running) => {
                running.send(request.raw())?;
                running.wait()
            }
        }
    }

    /// Has the plugin do an ADD. The result must name an address.
    pub async fn addresses(self, request: &Request, known: Call) -> Result<CniResult, CniError> {
        let result = match self {
            Self::Own => weft_ipam::call(request, Some(known)).await?,
            Self::Other(mut running) => {
                running.send(request.raw())?;
                running.wait_result(request.version())?
            }
        };
        if result.ips.is_empty() {
            let msg =
                "the IPAM plugin returned no address (IPAM plugin returned missing IP config)";
            return Err(CniError::new(code::DELEGATE, msg));
        }
        Ok(result)
    }
}
