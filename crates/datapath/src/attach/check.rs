//! Comparison of a veth with what it should be.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_model::MacAddr;

use crate::DatapathError;
use crate::address::FoundRoute;
use crate::netlink::Netlink;
use crate::ports;

/// The container's end as it should be.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Its name.
    pub ifname: &'a str,
    /// Its MAC, if that is known.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub addresses: &'a [IpNetwork],
    /// The destinations and next hops of its routes, in whatever table.
    pub routes: &'a [(IpNetwork, Option<IpAddr>)],
    /// True if some of the routes may be other interfaces', and are to lead by any.
    pub shares_routes: bool,
}

/// Differences of the container's end from what it should be; none if it is right. `netlink` is
/// connected in the container's namespace.
pub async fn check_interface(
    netlink: &Netlink,
    expected: &Expected<'_>,
) -> Result<Vec<String>, DatapathError> {
    let name = expected.ifname;
    let Some(link) = netlink.link(name).await? else {
        return Ok(vec![format!("interface {name} is missing in the container")]);
    };
    let mut differences = vec![];
    if !link.up {
        differences.push(format!("interface {name} is down"));
    }
    if let (Some(mac), Some(is)) = (expected.mac, link.mac)
        && mac != is
    {
        differences.push(format!("interface {name} has MAC {is}, not {mac}"));
    }
    let addresses = netlink.addresses(link.index).await?;
    for address in expected.addresses.iter().filter(|address| !addresses.contains(address)) {
        differences.push(format!("interface {name} lacks address {address}"));
    }
    let routes = netlink.routes().await?;
    for (dst, gw) in expected.routes {
        let is = |route: &FoundRoute| {
            route.dst == *dst
                && (gw.is_none() || route.gw == *gw)
                && (expected.shares_routes || route.link == link.index)
        };
        if !routes.iter().any(is) {
            differences.push(format!("interface {name} lacks the route to {dst}"));
        }
    }
    Ok(differences)
}

/// Differences of the host end from what it should be: a port of the bridge, up, and open for the
/// MAC that the interface in the container has.
pub async fn check_port(
    netlink: &Netlink,
    host_end: &str,
    bridge: u32,
) -> Result<Vec<String>, DatapathError> {
    let Some(link) = netlink.link(host_end).await? else {
        return Ok(vec![format!("host end {host_end} is missing")]);
    };
    let mut differences = vec![];
    if link.bridge != Some(bridge) {
        differences.push(format!("host end {host_end} is not a port of the network's bridge"));
    }
    if !link.up {
        differences.push(format!("host end {host_end} is down"));
    }
    if link.bridge == Some(bridge) {
        let closed = ports::closed(netlink, bridge, &[link]).await?;
        differences.extend(closed.iter().map(ToString::to_string));
    }
    Ok(differences)
}
