//! CHECK: the attachment is as ADD left it, as far as the previous result tells; later plugins of
//! the chain may have changed what the result says.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_cni::{CniError, Request, code};
use weft_wiring::attachment_check::Expected;

use crate::attachment::{Call, enter};
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
        ipam.call(request, Some(call.known())).await?;
    }
    let inside = enter(request)?;
    let own = previous
        .interfaces
        .iter()
        .position(|i| i.name == request.ifname() && !i.sandbox.is_empty());
    let of_own = previous.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == own);
    let addresses: Vec<IpNetwork> = of_own.map(|ip| ip.address).collect();
    let routes: Vec<(IpNetwork, Option<IpAddr>)> = previous
        .routes
        .iter()
        .filter(|route| route.table.is_none())
        .map(|route| (route.dst, route.gw))
        .collect();
    let expected = Expected {
        ifname: request.ifname(),
        mac: own.and_then(|index| previous.interfaces[index].mac.parse().ok()),
        addresses: &addresses,
        routes: &routes,
        // Those of an earlier plugin's interface lead by that.
        shares_routes: previous.interfaces.iter().filter(|i| !i.sandbox.is_empty()).count() > 1,
    };
    let differences = call.host.differences(&call.attachment, &inside, &expected).await;
    let differences = differences.map_err(|error| call.error("look at the attachment", error))?;
    if differences.is_empty() {
        return Ok(());
    }
    Err(CniError::new(code::CHECK_FAILED, differences.join("; ")).with_details(format!(
        "{}, node {}",
        call.attachment,
        call.host.config().node
    )))
}
