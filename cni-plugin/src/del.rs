//! DEL: the interface and the address are gone afterwards, also if they were gone before.
//!
//! The host end's name follows from the attachment, so the sandbox need not be entered, nor even
//! exist: removing one end of a veth removes both. Nor is the cluster store needed, so nothing of it
//! is opened: whatever has become of it, or of its certificates, containers can go.

use weft_cni::{CniError, Request};
use weft_datapath::attach;
use weft_model::device;

use crate::attachment::{attachment, conf, netlink, node_config};
use crate::error::kernel_error;
use crate::ipam::Ipam;

/// Removes the interface, then frees the address.
pub(crate) async fn del(request: &Request) -> Result<(), CniError> {
    let attachment = attachment(request)?;
    conf(request)?;
    let node = node_config()?.node;
    let netlink = netlink()?;
    let ipam = Ipam::of(request)?;
    let running = ipam.as_ref().map(|ipam| ipam.start(request)).transpose()?;
    let removed = attach::delete_port(&netlink, &device::host_end(&attachment)).await;
    removed.map_err(|error| {
        kernel_error(&format!("remove the interface ({attachment}, node {node})"), error)
    })?;
    // Only now may somebody else get the address.
    match running {
        None => Ok(()),
        Some(mut running) => {
            running.send(request.raw())?;
            running.wait()
        }
    }
}
