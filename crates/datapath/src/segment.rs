//! The bridge and the VXLAN device of a network on a host.
//!
//! Everything is created if it is missing, adopted if it is there and right, and corrected or
//! replaced if it is not. Each step can be repeated, by this process or by several at once: it
//! creates first and compares when the kernel says that the thing exists.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use log::{info, warn};
use netlink_packet_route::link::{BridgeStpState, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use weft_model::{MacAddr, NetworkName, Vni, device};

use crate::address::{Existing, PrefixRoute, Route};
use crate::link::{Link, LinkAttributes, PortFlags, Vxlan};
use crate::netlink::Netlink;
use crate::{DatapathError, sysctl};

/// The outer TTL. The kernel's default would be the inner packet's in some versions.
const TTL: u8 = 64;

/// A network as it should be on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// The network's name, for people who look at the devices.
    pub network: NetworkName,
    /// Its VNI, which names the devices.
    pub vni: Vni,
    /// The bridge's MAC.
    pub bridge_mac: MacAddr,
    /// The MTU of both devices, in bytes.
    pub mtu: u32,
    /// The tunnel, if there is an underlay.
    pub tunnel: Option<Tunnel>,
    /// The host's own addresses in the network.
    pub node_addresses: Vec<IpNetwork>,
    /// The subnets that the host reaches through the bridge, beside those of its own addresses.
    pub subnets: Vec<IpNetwork>,
    /// The addresses that containers send to on their way out.
    pub gateways: Vec<IpAddr>,
}

/// The tunnel of a network on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The address to send and receive VXLAN on.
    pub vtep: IpAddr,
    /// The UDP port to send and receive it on.
    pub port: u16,
    /// The index of the underlay interface.
    pub underlay: u32,
    /// The VXLAN device's MAC. No packet carries it.
    pub mac: MacAddr,
}

/// The devices of a network on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The bridge's index.
    pub bridge: u32,
    /// The VXLAN device's.
    pub vxlan: Option<u32>,
}

/// Makes sure that the network is on this host as `spec` says.
pub async fn ensure(netlink: &Netlink, spec: &SegmentSpec) -> Result<Segment, DatapathError> {
    let bridge = ensure_bridge(netlink, spec).await?;
    let vxlan = match &spec.tunnel {
        None => None,
        Some(tunnel) => Some(ensure_vxlan(netlink, spec, tunnel, bridge).await?),
    };
    ensure_addresses(netlink, spec, bridge).await?;
    for address in &spec.gateways {
        sysctl::allow_forwarding(*address)?;
    }
    Ok(Segment { bridge, vxlan })
}

/// Removes the devices of the network with `vni`, ports and all. They may be gone already.
pub async fn remove(netlink: &Netlink, vni: Vni) -> Result<(), DatapathError> {
    netlink.delete_link(&device::vxlan(vni)).await?;
    netlink.delete_link(&device::bridge(vni)).await?;
    Ok(())
}

/// Returns whether both devices of the network with `vni` are there, up, and joined.
pub async fn is_intact(
    netlink: &Netlink,
    vni: Vni,
    segment: &Segment,
) -> Result<bool, DatapathError> {
    // The name too: firewall rules and repairs go by it.
    let is = |link: &Option<Link>, kind: &str, name: String| {
        link.as_ref().filter(|link| link.is(kind) && link.name == name && link.up).cloned()
    };
    let indexes: Vec<u32> = std::iter::once(segment.bridge).chain(segment.vxlan).collect();
    let links = netlink.links_with_indexes(&indexes).await?;
    let bridge = links.first().and_then(|link| is(link, "bridge", device::bridge(vni)));
    let vxlan = links.get(1).map(|link| is(link, "vxlan", device::vxlan(vni)));
    let joined = |vxlan: Option<Link>| vxlan.is_some_and(|v| v.bridge == Some(segment.bridge));
    Ok(bridge.is_some() && vxlan.is_none_or(joined))
}

async fn ensure_bridge(netlink: &Netlink, spec: &SegmentSpec) -> Result<u32, DatapathError> {
    let name = device::bridge(spec.vni);
    // The MAC is set with the creation: set later, another program may have changed it in between,
    // and a bridge without one of its own takes its lowest port's.
    // Not by `LinkBridge::new`, which sets the bridge up before it has its other settings.
    let create = LinkMessageBuilder::<LinkBridge>::new(&name)
        .mac(spec.bridge_mac)
        .stp_state(BridgeStpState::Disabled)
        .mcast_snooping(false);
    match netlink.create_link(create.build(), || format!("create bridge {name}")).await {
        Ok(()) => info!("network {}: created bridge {name}", spec.network),
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error),
    }
    let bridge = existing(netlink, &name).await?;
    if !bridge.is("bridge") {
        return Err(not_ours(&name, "bridge"));
    }
    // Only what differs is changed: the kernel reports a change also if nothing is different, and
    // a caller that repairs on events would come back here for ever.
    if !is_set_up(&bridge, spec) || bridge.mac != Some(spec.bridge_mac) {
        let change = LinkUnspec::new_with_index(bridge.index)
            .mtu(spec.mtu)
            .short_alias(&alias(spec))
            .no_link_local()
            .mac(spec.bridge_mac)
            .up();
        netlink.change_link(change.build(), || format!("set up bridge {name}")).await?;
    }
    sysctl::ignore_router_advertisements(&name)?;
    Ok(bridge.index)
}

async fn ensure_vxlan(
    netlink: &Netlink,
    spec: &SegmentSpec,
    tunnel: &Tunnel,
    bridge: u32,
) -> Result<u32, DatapathError> {
    let name = device::vxlan(spec.vni);
    let mut replaced = false;
    let vxlan = loop {
        let create = vxlan_message(&name, spec.vni, tunnel, bridge);
        match netlink.create_link(create, || format!("create VXLAN device {name}")).await {
            Ok(()) => info!("network {}: created VXLAN device {name}", spec.network),
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error),
        }
        let Some(vxlan) = netlink.link(&name).await? else {
            // The kernel said that "it" exists, and meant the VNI.
            return Err(vni_taken(netlink, spec, tunnel).await?);
        };
        if !vxlan.is("vxlan") {
            return Err(not_ours(&name, "VXLAN device"));
        }
        match difference(vxlan.vxlan.as_ref(), spec.vni, tunnel) {
            None => break vxlan,
            Some(reason) if !replaced => {
                warn!("network {}: replacing VXLAN device {name}: {reason}", spec.network);
                netlink.delete_link(&name).await?;
                replaced = true;
            }
            Some(reason) => {
                return Err(DatapathError::Foreign {
                    what: format!("VXLAN device {name} is not as it was created: {reason}"),
                    hint: "find the program that changes it".into(),
                });
            }
        }
    };
    if !is_set_up(&vxlan, spec) || vxlan.bridge != Some(bridge) {
        let change = LinkUnspec::new_with_index(vxlan.index)
            .mtu(spec.mtu)
            .short_alias(&alias(spec))
            .no_link_local()
            .controller(bridge);
        netlink.change_link(change.build(), || format!("set up VXLAN device {name}")).await?;
        // In one message with the rest it would be up before it is told to have no link-local
        // address.
        let up = LinkUnspec::new_with_index(vxlan.index).up();
        netlink.change_link(up.build(), || format!("set VXLAN device {name} up")).await?;
    }
    let port = PortFlags { neigh_suppress: true, ..PortFlags::default() };
    if vxlan.port != port {
        let change = port.request(vxlan.index).build();
        netlink.change_link(change, || format!("set up {name} as a port of its bridge")).await?;
    }
    sysctl::ignore_router_advertisements(&name)?;
    Ok(vxlan.index)
}

/// The alias of both devices, for people who look at them.
fn alias(spec: &SegmentSpec) -> String {
    format!("weft:{}", spec.network)
}

/// Returns whether the device has what both have in common. The alias is set together with what
/// cannot be read back (the mode of link-local addresses), and so stands for it.
fn is_set_up(link: &Link, spec: &SegmentSpec) -> bool {
    link.up && link.mtu == spec.mtu && link.alias == alias(spec)
}

fn vxlan_message(name: &str, vni: Vni, tunnel: &Tunnel, bridge: u32) -> LinkMessage {
    // Without the port the kernel takes 8472, which it used before one was assigned.
    let message = LinkVxlan::new(name, vni.get())
        .mac(tunnel.mac)
        .controller(bridge)
        .dev(tunnel.underlay)
        .ttl(TTL)
        .learning(false)
        .port(tunnel.port);
    match tunnel.vtep {
        IpAddr::V4(address) => message.local(address).build(),
        IpAddr::V6(address) => message.local6(address).build(),
    }
}

/// The first setting in which the device is not as it should be. None of them can be changed.
fn difference(vxlan: Option<&Vxlan>, vni: Vni, tunnel: &Tunnel) -> Option<String> {
    let Some(vxlan) = vxlan else { return Some("it does not show its settings".into()) };
    let differs = |what: &str, is: String, should: String| {
        (is != should).then(|| format!("its {what} is {is}, not {should}"))
    };
    let local = vxlan.local.map_or_else(|| "(none)".to_owned(), |local| local.to_string());
    differs("VNI", vxlan.vni.to_string(), vni.to_string())
        .or_else(|| differs("port", vxlan.port.to_string(), tunnel.port.to_string()))
        .or_else(|| differs("VTEP", local, tunnel.vtep.to_string()))
        .or_else(|| {
            let (is, should) = (vxlan.underlay, tunnel.underlay);
            differs("underlay interface's index", is.to_string(), should.to_string())
        })
        .or_else(|| differs("TTL", vxlan.ttl.to_string(), TTL.to_string()))
        .or_else(|| vxlan.learning.then(|| "it learns addresses".to_owned()))
}

/// The device that has the VNI and port already.
async fn vni_taken(
    netlink: &Netlink,
    spec: &SegmentSpec,
    tunnel: &Tunnel,
) -> Result<DatapathError, DatapathError> {
    let same = |link: &Link| {
        link.vxlan.as_ref().is_some_and(|v| v.vni == spec.vni.get() && v.port == tunnel.port)
    };
    let holder = netlink.links().await?.into_iter().find(same);
    let holder = holder.map_or_else(|| "another device".to_owned(), |link| link.name);
    Ok(DatapathError::Foreign {
        what: format!(
            "VXLAN device {holder} of this host already has VNI {} on UDP port {}",
            spec.vni, tunnel.port
        ),
        hint: format!(
            "remove it, or give network {} another `vni`, or this node another `port`",
            spec.network
        ),
    })
}

async fn existing(netlink: &Netlink, name: &str) -> Result<Link, DatapathError> {
    netlink.link(name).await?.ok_or_else(|| DatapathError::NoAnswer {
        what: format!("read {name}"),
        problem: "it was removed right after its creation".into(),
    })
}

fn not_ours(name: &str, kind: &str) -> DatapathError {
    DatapathError::Foreign {
        what: format!("interface {name} is not a {kind}"),
        hint: "remove or rename it: weft needs the name".into(),
    }
}

async fn ensure_addresses(
    netlink: &Netlink,
    spec: &SegmentSpec,
    bridge: u32,
) -> Result<(), DatapathError> {
    let gateways: Vec<IpNetwork> = spec.gateways.iter().copied().map(IpNetwork::from).collect();
    for address in netlink.addresses(bridge).await? {
        if !spec.node_addresses.contains(&address) && !gateways.contains(&address) {
            netlink.remove_address(bridge, address).await?;
        }
    }
    let all = spec.node_addresses.iter().chain(&gateways);
    if all.into_iter().any(IpNetwork::is_ipv6) {
        sysctl::allow_ipv6(&device::bridge(spec.vni))?;
    }
    // The node address comes first: the kernel prefers the first address as a source.
    for address in &spec.node_addresses {
        netlink.set_address(bridge, *address, PrefixRoute::None).await?;
        let subnet = IpNetwork::new(address.network(), address.prefix()).unwrap_or(*address);
        let route = Route { source: Some(address.ip()), ..Route::new(subnet, None) };
        netlink.set_route(bridge, &route, Existing::Replace).await?;
    }
    for gateway in gateways {
        netlink.set_address(bridge, gateway, PrefixRoute::None).await?;
    }
    for subnet in &spec.subnets {
        let mut own = spec.node_addresses.iter().map(IpNetwork::ip);
        let source = own.find(|own| own.is_ipv4() == subnet.is_ipv4());
        let route = Route { source, ..Route::new(*subnet, None) };
        netlink.set_route(bridge, &route, Existing::Replace).await?;
    }
    Ok(())
}
