//! CHECK: the attachment is as ADD left it, as far as the previous result tells; later plugins of the
//! chain may have changed what the result says.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni::{CniError, Request, code};
use weft_datapath::attach::{self, Expected};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_wiring::SegmentState;

use crate::attachment::Call;
use crate::error::kernel_error;
use crate::ipam::Ipam;

/// Compares the attachment with the previous result.
pub(crate) async fn check(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    let ipam = Ipam::of(request)?;
    let Some(previous) = request.prev_result()? else {
        let msg = "prevResult is missing: CHECK compares with it";
        return Err(CniError::new(code::INVALID_CONFIG, msg));
    };
    if let Some(ipam) = ipam {
        ipam.call(request)?;
    }
    let mut differences = check_host(&call).await?;

    let netns = Netns::open(request.netns().unwrap_or_default())
        .map_err(|error| CniError::new(code::INVALID_NETNS, format!("CNI_NETNS: {error}")))?;
    let inside = Netlink::open_in(&netns, Entry::CallingThread)
        .map_err(|error| kernel_error("enter the container's namespace", error))?;
    let own = previous
        .interfaces
        .iter()
        .position(|i| i.name == request.ifname() && !i.sandbox.is_empty());
    let mac = own.and_then(|index| previous.interfaces[index].mac.parse().ok());
    let of_own = previous.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == own);
    let addresses: Vec<IpNetwork> = of_own.map(|ip| ip.address).collect();
    let routes: Vec<(IpNetwork, Option<IpAddr>)> = previous
        .routes
        .iter()
        .filter(|route| route.table.is_none())
        .map(|route| (route.dst, route.gw))
        .collect();
    let expected =
        Expected { ifname: request.ifname(), mac, addresses: &addresses, routes: &routes };
    let found = attach::check_interface(&inside, &expected).await;
    differences.extend(found.map_err(|error| call.error("look at the interface", error))?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(CniError::new(code::CHECK_FAILED, differences.join("; ")).with_details(format!(
        "{}, node {}",
        call.attachment,
        call.host.config().node
    )))
}

/// What is wrong on the host's side.
async fn check_host(call: &Call) -> Result<Vec<String>, CniError> {
    let config = call.host.config();
    let Some(state) = SegmentState::read(&config.data_dir, &call.attachment.network) else {
        return Ok(vec![format!("network {} is not on this host", call.attachment.network)]);
    };
    let mut differences = vec![];
    let intact = call.host.is_intact(&state).await;
    if !intact.map_err(|error| call.error("look at the bridge", error))? {
        differences.push(format!(
            "the bridge or the VXLAN device of network {} is missing or down",
            call.attachment.network
        ));
    }
    let port = attach::check_port(call.host.netlink(), &call.host_end, state.bridge).await;
    differences.extend(port.map_err(|error| call.error("look at the host end", error))?);
    Ok(differences)
}
