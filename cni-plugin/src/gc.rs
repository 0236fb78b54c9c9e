//! GC: addresses that no known attachment needs are freed.
//!
//! The IPAM frees those whose sandboxes are gone: the kernel has removed both ends of their veths
//! by then. What is left in sandboxes that live on only the main plugin can tell, which knows the
//! interfaces; it goes first.

use std::collections::HashSet;

use weft_cluster::networks;
use weft_cni::{CniError, Request, ValidAttachments};
use weft_ipam::request::network_name;
use weft_model::Attachment;
use weft_wiring::WiringError;
use weft_wiring::collect::collect;

use crate::attachment::{netlink, node_config};
use crate::error::cni_error;
use crate::ipam::Ipam;

/// Collects what is left in living sandboxes, and has the IPAM collect the rest.
pub(crate) async fn gc(request: &Request) -> Result<(), CniError> {
    let ipam = Ipam::of(request)?;
    let collected = match request.ipam_type()?.as_deref() {
        Some(weft_ipam::NAME) => collect_living(request).await,
        // What another IPAM plugin gave only that one can free.
        _ => Ok(()),
    };
    if let Some(ipam) = ipam {
        ipam.call(request, None).await?;
    }
    collected
}

async fn collect_living(request: &Request) -> Result<(), CniError> {
    // An old runtime that names nothing knows nothing: not even that all is to go.
    let ValidAttachments::Listed(valid) = request.valid_attachments()? else { return Ok(()) };
    let config = node_config()?;
    let name = network_name(request)?;
    let failed = |error: WiringError| {
        cni_error(&format!("collect (network {name}, node {})", config.node), &error)
    };
    let cached = networks::cached(&config.data_dir, &name).map_err(|error| failed(error.into()))?;
    let Some(network) = cached else { return Ok(()) };
    let listed: HashSet<(&str, &str)> =
        valid.iter().map(|a| (a.container_id.as_str(), a.ifname.as_str())).collect();
    let is_listed = |attachment: &Attachment| {
        listed.contains(&(attachment.container_id.as_str(), attachment.ifname.as_str()))
    };
    collect(&netlink()?, &config.data_dir, network, is_listed).await.map_err(failed)
}
