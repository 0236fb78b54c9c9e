//! STATUS: an ADD would work, and its container would be reachable.

use weft_cni::{CniError, Request, code};
use weft_ipam::request::{conf, network_name};
use weft_wiring::{SegmentState, selector};

use crate::attachment::host;
use crate::ipam::Ipam;

/// Looks at what ADD needs.
pub(crate) async fn status(request: &Request) -> Result<(), CniError> {
    let network = network_name(request)?;
    conf(request)?;
    if let Some(ipam) = Ipam::of(request)? {
        ipam.call(request, None).await?;
    }
    let host = host()?;
    if host.cluster().is_single_node() {
        return Ok(());
    }
    let node = &host.config().node;
    let selector = selector(&host.config().underlay);
    if let Err(error) = weft_datapath::underlay::find(host.netlink(), &selector).await {
        return Err(CniError::new(code::NOT_AVAILABLE, error.to_string()));
    }
    let data_dir = &host.config().data_dir;
    if SegmentState::read(data_dir, &network).is_some_and(|state| state.lacks_address) {
        return Err(CniError::new(
            code::LIMITED_CONNECTIVITY,
            format!(
                "node {node} has no address of its own in network {network}: the one that it had \
                 became another node's, and none is free; free one, or add a subnet with `weftctl \
                 network extend`"
            ),
        ));
    }
    if weft_cluster::agent::is_running(data_dir) {
        return Ok(());
    }
    Err(CniError::new(
        code::LIMITED_CONNECTIVITY,
        format!(
            "weftd does not run on node {node}: what other nodes change is not noticed here; start \
             it"
        ),
    ))
}
