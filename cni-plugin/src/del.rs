//! DEL: the interface and the address are gone afterwards, also if they were gone before. Neither
//! the sandbox nor the cluster store is needed.

use weft_cni::{CniError, Request};
use weft_wiring::detach::detach;

use crate::attachment::{attachment, conf, netlink, node_config};
use crate::error::cni_error;
use crate::ipam::{Ipam, Known};

/// Removes the interface, then frees the address.
pub(crate) async fn del(request: &Request) -> Result<(), CniError> {
    let attachment = attachment(request)?;
    let conf = conf(request)?;
    let config = node_config()?;
    let node = config.node.clone();
    let netlink = netlink()?;
    let ipam = Ipam::of(request)?;
    let started = ipam.as_ref().map(|ipam| ipam.start(request)).transpose()?;
    detach(&netlink, &attachment).await.map_err(|error| {
        cni_error(&format!("remove the interface ({attachment}, node {node})"), &error)
    })?;
    // Only now may another container get the address.
    match started {
        None => Ok(()),
        Some(started) => started.finish(request, Some(Known { conf, node: config })).await,
    }
}
