//! `weft`: the CNI main plugin. It connects a container to an overlay network and takes it off again.
//!
//! # The life of one attachment
//!
//! The runtime execs `weft` with a network namespace and a configuration. While the IPAM plugin, a
//! process of its own, looks for an address, `weft` makes a veth pair with one end in the namespace
//! and the other as a port of the network's bridge. With the address come the MAC, the port's
//! protection and the routes, and that is all: peers know the address already, since they know the
//! block that it lies in. No firewall rule, no store, no agent takes part.
//!
//! Only the first container of a network on a node takes more: the bridge, the VXLAN device, the
//! node's own address, the firewall rules. What was made is noted, and the note is what later calls
//! go by; when the kernel disagrees with the note, everything is made sure of again.
//!
//! - [`attachment`]: a call, checked.
//! - [`add`], [`del`], [`check`], [`gc`], [`status`]: a verb each.
//! - [`ipam`]: the delegation to the IPAM plugin.
//! - [`undo`]: what a failed ADD takes back.

pub mod add;
pub mod attachment;
pub mod check;
pub mod del;
mod error;
pub mod gc;
pub mod ipam;
pub mod status;
pub mod undo;

use weft_cni::{CniError, CniResult, Plugin, Request};

/// The plugin.
#[derive(Debug, Default)]
pub struct Weft;

impl Plugin for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn add(&self, request: &Request) -> Result<CniResult, CniError> {
        error::block_on(add::add(request))?
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        error::block_on(del::del(request))?
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        error::block_on(check::check(request))?
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        gc::gc(request)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        error::block_on(status::status(request))?
    }
}
