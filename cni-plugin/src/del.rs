//! DEL: the interface and the address are gone afterwards, also if they were gone before. Neither
//! the sandbox nor the cluster store is needed, nor a configuration that can be read: one that was
//! edited since ADD must not keep containers from being deleted.

use weft_allocator::release::{Reason, release};
use weft_cni::{CniError, Request};
use weft_ipam::request::{Call, attachment};
use weft_ledger::Holder;
use weft_netconf::NetConf;
use weft_wiring::CallLock;
use weft_wiring::detach::detach;

use crate::attachment::{netlink, node_config};
use crate::error::cni_error;
use crate::ipam::Ipam;

/// Removes the interface, then frees the address.
pub(crate) async fn del(request: &Request) -> Result<(), CniError> {
    let attachment = attachment(request)?;
    let config = node_config()?;
    let failed = |what: &str, error| {
        cni_error(&format!("{what} ({attachment}, node {})", config.node), &error)
    };
    let _lock = CallLock::wait_to_free(&config.data_dir, &attachment)
        .map_err(|error| failed("wait for other calls", error.into()))?;
    let netlink = netlink()?;
    let ipam = Ipam::of(request);
    let started = match &ipam {
        Ok(Some(ipam)) => Some(ipam.start(request)),
        _ => None,
    };
    detach(&netlink, &attachment).await.map_err(|error| failed("remove the interface", error))?;
    let is_own = matches!(&ipam, Ok(Some(Ipam::Own)));
    // Only now may another container get the address.
    let finished = match started.transpose() {
        Ok(Some(started)) => {
            let network = attachment.network.clone();
            let known = Call { network, conf: NetConf::default(), node: config.clone() };
            started.finish(request, Some(known)).await
        }
        other => other.and(ipam).map(drop),
    };
    if is_own {
        return finished;
    }
    // What an ADD with another configuration has reserved no other IPAM plugin frees.
    let holder = Holder::from(&attachment);
    let freed = release(&config.data_dir, &attachment.network, &holder, Reason::Deleted);
    freed.map_err(|error| failed("release the address", error.into()))?;
    finished
}
