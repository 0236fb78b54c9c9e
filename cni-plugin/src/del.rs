//! DEL: the interface and the address are gone afterwards, also if they were gone before.
//!
//! The host end's name follows from the attachment, so the sandbox need not be entered, nor even
//! exist: removing one end of a veth removes both.

use weft_cni::{CniError, Request};
use weft_datapath::attach;

use crate::attachment::Call;
use crate::ipam::Ipam;

/// Removes the interface, then frees the address.
pub(crate) async fn del(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    let ipam = Ipam::of(request)?;
    let running = ipam.as_ref().map(|ipam| ipam.start(request)).transpose()?;
    attach::delete_port(call.host.netlink(), &call.host_end)
        .await
        .map_err(|error| call.error("remove the interface", error))?;
    // Only now may somebody else get the address.
    match running {
        None => Ok(()),
        Some(mut running) => {
            running.send(request.raw())?;
            running.wait()
        }
    }
}
