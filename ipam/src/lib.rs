//! `weft-ipam`: an address for an attachment.
//!
//! Works under `weft` and, like any IPAM plugin, under foreign main plugins; run by hand as a main
//! plugin it reserves and touches no sandbox. While a block of this node has room it reads and
//! writes a few files and asks nobody.
//!
//! - [`request`]: what a call asks for.
//! - [`add`], [`del`], [`check`], [`gc`], [`status`]: a verb each.

pub mod add;
pub mod check;
pub mod del;
mod error;
pub mod gc;
pub mod request;
pub mod status;

use weft_cni::{CniError, CniResult, Plugin, Request};

/// The plugin.
#[derive(Debug, Default)]
pub struct Ipam;

impl Plugin for Ipam {
    fn name(&self) -> &'static str {
        "weft-ipam"
    }

    fn add(&self, request: &Request) -> Result<CniResult, CniError> {
        add::add(request)
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        del::del(request)
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        check::check(request)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        gc::gc(request)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        status::status(request)
    }
}
