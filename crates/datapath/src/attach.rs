//! A container's veth: made, protected, configured, checked, removed.
//!
//! The steps are separate so that a caller can do something else between them, or leave the
//! container's end on the host for somebody else to move.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_model::MacAddr;

pub use crate::address::Route;
use crate::address::{Existing, PrefixRoute};
use crate::link::{LinkRequest, PortFlags};
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::{DatapathError, sysctl};

/// A veth pair to make.
#[derive(Debug)]
pub struct PortSpec<'a> {
    /// The name of the end that stays on the host.
    pub host_end: &'a str,
    /// Its MAC. It is set so that nobody gives it another.
    pub host_mac: MacAddr,
    /// What it is for, for people who look at the device.
    pub alias: &'a str,
    /// The index of the bridge that it becomes a port of.
    pub bridge: u32,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// The name of the container's end.
    pub ifname: &'a str,
    /// Its MAC.
    pub mac: MacAddr,
    /// The namespace that it goes into; without one it stays on the host.
    pub netns: Option<&'a Netns>,
}

/// Whether the bridge sends a frame back through the port that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The container's end of a veth, to be configured.
#[derive(Debug)]
pub struct InterfaceSpec<'a> {
    /// Its name.
    pub ifname: &'a str,
    /// Where it is.
    pub netns: &'a Netns,
    /// Its addresses.
    pub addresses: &'a [IpNetwork],
    /// Its routes.
    pub routes: &'a [Route],
}

/// Makes a veth pair with the MACs of both ends, one end in the container's namespace, the other a port
/// of the bridge and up: one message to the kernel. The container's end is down.
pub async fn create_port(netlink: &Netlink, spec: &PortSpec<'_>) -> Result<(), DatapathError> {
    let mut peer = LinkRequest::named(spec.ifname).mac(spec.mac).mtu(spec.mtu);
    if let Some(netns) = spec.netns {
        peer = peer.netns(netns.raw_fd());
    }
    let request = LinkRequest::named(spec.host_end)
        .mac(spec.host_mac)
        .mtu(spec.mtu)
        .bridge(spec.bridge)
        .up()
        .kind(InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(peer.0))));
    netlink
        .create_link(request, || {
            let place = spec.netns.map(|netns| format!(" in {}", netns.path().display()));
            let place = place.unwrap_or_default();
            format!("make interface {}{place} with host end {}", spec.ifname, spec.host_end)
        })
        .await
}

/// Lets only frames from and to `mac` through the port, and no link-local address be made on it.
/// What the bridge does not know it does not try here.
pub async fn secure_port(
    netlink: &Netlink,
    spec: &PortSpec<'_>,
    mac: MacAddr,
    hairpin: Hairpin,
) -> Result<(), DatapathError> {
    let flags = PortFlags {
        multicast_flood: true,
        broadcast_flood: true,
        hairpin: hairpin == Hairpin::On,
        locked: true,
        ..PortFlags::default()
    };
    let name = spec.host_end;
    let Some(link) = netlink.link(name).await? else {
        return Err(DatapathError::NoAnswer {
            what: format!("look at {name}"),
            problem: "it was removed right after it had been made".into(),
        });
    };
    let request = LinkRequest::indexed(link.index).alias(spec.alias).no_link_local().port(flags);
    netlink.change_link(request, || format!("protect port {name}")).await?;
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.index;
    message.header.flags = NeighbourFlags::Controller;
    message.header.state = NeighbourState::Noarp;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
    let message = RouteNetlinkMessage::NewNeighbour(message);
    netlink
        .request(message, NLM_F_CREATE | NLM_F_REPLACE, || format!("let {mac} through port {name}"))
        .await
}

/// Sets the container's end up and gives it its addresses and routes. `netlink` is connected in
/// the container's namespace.
pub async fn configure_interface(
    netlink: &Netlink,
    spec: &InterfaceSpec<'_>,
) -> Result<(), DatapathError> {
    let name = spec.ifname;
    let Some(link) = netlink.link(name).await? else {
        return Err(DatapathError::NoAnswer {
            what: format!("look at {name} in the container"),
            problem: "it was removed right after it had been made".into(),
        });
    };
    let request = LinkRequest::indexed(link.index).up();
    netlink.change_link(request, || format!("set up {name} in the container")).await?;
    for address in spec.addresses {
        let set = || netlink.set_address(link.index, *address, PrefixRoute::Automatic);
        match set().await {
            // Runtimes may make containers without IPv6; an IPv6 address says that this one is to
            // have it. Most have it anyway, so the namespace is entered for the others only.
            Err(error) if address.is_ipv6() && error.errno() == Some(libc::EACCES) => {
                spec.netns.run(|| sysctl::allow_ipv6(name))??;
                set().await?;
            }
            other => other?,
        }
    }
    for route in spec.routes {
        netlink.set_route(link.index, route, Existing::Keep).await?;
    }
    Ok(())
}

/// Removes a veth pair by its host end; says whether it was there.
pub async fn delete_port(netlink: &Netlink, host_end: &str) -> Result<bool, DatapathError> {
    netlink.delete_link(host_end).await
}

/// Sets a host end down, if it is there: nothing passes it any more.
pub async fn disconnect_port(netlink: &Netlink, host_end: &str) -> Result<(), DatapathError> {
    let Some(link) = netlink.link(host_end).await? else { return Ok(()) };
    let request = LinkRequest::indexed(link.index).down();
    netlink.change_link(request, || format!("set {host_end} down")).await
}

/// What the container's end should be like.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Its name.
    pub ifname: &'a str,
    /// Its MAC, if that is known.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub addresses: &'a [IpNetwork],
    /// The destinations and next hops of its routes.
    pub routes: &'a [(IpNetwork, Option<IpAddr>)],
}

/// In what the container's end is not as it should be; nothing if it is. `netlink` is connected in the
/// container's namespace.
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
    let routes = netlink.routes(link.index).await?;
    for (dst, gw) in expected.routes {
        let same = |(to, by): &(IpNetwork, Option<IpAddr>)| to == dst && (gw.is_none() || by == gw);
        if !routes.iter().any(same) {
            differences.push(format!("interface {name} lacks the route to {dst}"));
        }
    }
    Ok(differences)
}

/// In what the host end is not as it should be: a port of the bridge, and up.
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
        differences.push(format!("host end {host_end} is no port of the network's bridge"));
    }
    if !link.up {
        differences.push(format!("host end {host_end} is down"));
    }
    Ok(differences)
}

/// The ports of the bridge that are containers' host ends, with their aliases.
pub async fn list_ports(
    netlink: &Netlink,
    bridge: u32,
) -> Result<Vec<(String, String)>, DatapathError> {
    let links = netlink.links().await?;
    let ports = links.into_iter().filter(|link| link.bridge == Some(bridge) && link.is("veth"));
    Ok(ports.map(|link| (link.name, link.alias)).collect())
}
