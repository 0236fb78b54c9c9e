//! `weft`: the CNI main plugin. It connects a container to an overlay network and takes it off
//! again.
//!
//! # The life of one attachment
//!
//! The runtime execs `weft` with a network namespace and a configuration. The IPAM gives an
//! address: `weft-ipam` in this very process, any other plugin in its own. The MAC follows from
//! it, and `weft` makes a veth pair with one end in the namespace and the other as a port of the
//! network's bridge, protects the port, sets address and routes, and that is all: peers know the
//! address already, since they know the block that it lies in. No firewall rule, no store, no
//! agent takes part.
//!
//! Only the first container of a network on a node takes more: the bridge, the VXLAN device, the
//! node's own address, the firewall rules. What was made is noted, and the note is what later
//! calls go by; when the kernel disagrees with the note, everything is made sure of again.
//!
//! - [`attachment`]: a call, checked.
//! - [`add`], [`del`], [`check`], [`gc`], [`status`]: a verb each.
//! - [`ipam`]: the IPAM plugin, in this process or in its own.
//!
//! The work is done by [`weft_wiring`] and [`weft_allocator`]; here it is parsed, called and
//! printed.

pub mod add;
pub mod attachment;
pub mod check;
pub mod del;
mod error;
pub mod gc;
pub mod ipam;
pub mod status;

use log::warn;
use weft_cni::{CniError, CniResult, Plugin, Request, Verb};

/// The plugin.
#[derive(Debug, Default)]
pub struct Weft;

impl Plugin for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn add(&self, request: &Request) -> Result<CniResult, CniError> {
        weft_ipam::block_on(add::add(request))?
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        weft_ipam::block_on(del::del(request))?
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        weft_ipam::block_on(check::check(request))?
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        weft_ipam::block_on(gc::gc(request))?
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        weft_ipam::block_on(status::status(request))?
    }

    /// An ADD of what is attached already fails, so one that succeeded has made all there is.
    fn take_back(&self, request: &Request) {
        if let Err(error) = self.del(&request.with_verb(Verb::Del)) {
            warn!("while taking back an ADD without a result: {error}");
        }
    }
}
