//! A container's veth: created, secured, configured, checked, removed.
//!
//! The steps are separate so that a caller can do something else between them, or leave the
//! container's end on the host for another program to move. Each is one message to the kernel, of
//! several requests where it takes several.

mod check;
mod delete;
pub mod entry;

use ipnetwork::IpNetwork;
use netlink_packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkUnspec, LinkVeth};
use weft_model::MacAddr;

pub use self::check::{Expected, check_interface, check_port};
pub use self::delete::delete_port;
pub use crate::address::Route;
use crate::address::{Existing, PrefixRoute, address_request, describe_route, route_request};
use crate::link::{self, Link, LinkAttributes, PortFlags, named, shown};
use crate::netlink::{self, Netlink, Outcome, Request};
use crate::netns::{Entry, Netns};
use crate::{DatapathError, sysctl};

/// A veth pair to create.
#[derive(Debug)]
pub struct PortSpec<'a> {
    /// The name of the end that stays on the host.
    pub host_end: &'a str,
    /// Its MAC. It is set so that no other program gives it one.
    pub host_mac: MacAddr,
    /// The index of the bridge that it becomes a port of.
    pub bridge: u32,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// The name of the container's end.
    pub ifname: &'a str,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its namespace; without one it stays on the host.
    pub netns: Option<&'a Netns>,
}

/// The indexes of a veth pair's ends, each in its own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The end on the host.
    pub host_end: u32,
    /// The container's end.
    pub interface: u32,
}

/// Treatment of a frame whose way leads back through the port that it came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    /// The bridge sends it back.
    On,
    /// The bridge drops it.
    Off,
}

/// The protection of a host end.
#[derive(Debug)]
pub struct PortSecurity<'a> {
    /// The host end's index.
    pub index: u32,
    /// Its name, for errors.
    pub name: &'a str,
    /// Its alias, for people who look at the device.
    pub alias: &'a str,
    /// The index of the bridge that it is a port of.
    pub bridge: u32,
    /// The container's MAC, the only one that may send.
    pub mac: MacAddr,
    /// The indexes of ports that lose the MAC to this one if they have it.
    pub takes_from: &'a [u32],
    /// Treatment of a frame whose way leads back through this port.
    pub hairpin: Hairpin,
}

/// The container's end of a veth, to be configured.
#[derive(Debug)]
pub struct InterfaceSpec<'a> {
    /// Its index in the container.
    pub index: u32,
    /// Its name.
    pub ifname: &'a str,
    /// Its namespace.
    pub netns: &'a Netns,
    /// Its addresses.
    pub addresses: &'a [IpNetwork],
    /// Its routes.
    pub routes: &'a [Route],
}

/// Creates a veth pair with the MACs of both ends: one end in the container's namespace, the other
/// a port of the bridge. Both are down: [`secure_port`] sets the port up once it is protected.
pub async fn create_port(netlink: &Netlink, spec: &PortSpec<'_>) -> Result<Port, DatapathError> {
    let mut peer = LinkUnspec::new_with_name(spec.ifname).mac(spec.mac).mtu(spec.mtu);
    if let Some(netns) = spec.netns {
        peer = peer.setns_by_fd(netns.raw_fd());
    }
    let create = LinkVeth::new(spec.host_end, spec.ifname)
        .mac(spec.host_mac)
        .mtu(spec.mtu)
        .controller(spec.bridge)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    let what = || {
        let place = spec.netns.map(|netns| format!(" in {}", netns.path().display()));
        let place = place.unwrap_or_default();
        format!("create interface {}{place} with host end {}", spec.ifname, spec.host_end)
    };
    // The kernel chooses the indexes. It would answer with them (NLM_F_ECHO) from 6.2 on only.
    let requests = vec![link::to_create(create.build()), link::to_show(named(spec.host_end))];
    let mut outcomes = netlink.exchange(requests, what).await?;
    let link = outcomes.pop().map_or(Ok(None), |outcome| shown(outcome, what));
    netlink::first_refusal(outcomes, |_| what())?;
    let port = link?.and_then(|link| Some(Port { host_end: link.index, interface: link.tied_to? }));
    port.ok_or_else(|| DatapathError::NoAnswer {
        what: what(),
        problem: "it was removed right after its creation".into(),
    })
}

/// Returns whether a link is the host end that [`create_port`] makes under its name: one that has
/// the MAC of that name, or weft's alias. Another program may have made a link of the same name.
pub fn is_host_end(link: &Link) -> bool {
    let is_named = link.alias.starts_with("weft:");
    link.is("veth") && (is_named || link.mac == Some(MacAddr::from_seed(&link.name)))
}

/// Lets only frames from and to the container's MAC through the port, keeps the kernel from giving
/// it a link-local address, and then sets it up. The bridge does not flood unknown unicast to it.
/// The entry of the MAC is sticky: a frame with that MAC by another port does not move it.
///
/// # Errors
///
/// [`DatapathError::MacHeld`] if the bridge itself has the MAC, or a port that it may not be taken
/// from.
pub async fn secure_port(
    netlink: &Netlink,
    security: &PortSecurity<'_>,
) -> Result<(), DatapathError> {
    let &PortSecurity { index, name, alias, mac, hairpin, .. } = security;
    let flags = PortFlags {
        multicast_flood: true,
        broadcast_flood: true,
        hairpin: hairpin == Hairpin::On,
        locked: true,
        ..PortFlags::default()
    };
    let port = flags.request(index).short_alias(alias).no_link_local();
    // A refusal of one does not stop the next, so the port is set up with a message of its own.
    let requests = vec![link::to_change(port.build()), entry::to_create(index, mac)];
    let mut outcomes = netlink.exchange(requests, || format!("secure port {name}")).await?;
    let exists =
        |outcome: &mut Outcome| matches!(outcome, Err(refusal) if refusal.errno == libc::EEXIST);
    let entry_exists = outcomes.pop_if(exists).is_some();
    netlink::first_refusal(outcomes, |request| match request {
        0 => format!("secure port {name}"),
        _ => format!("let {mac} through port {name}"),
    })?;
    if entry_exists {
        entry::take(netlink, security).await?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    netlink.change_link(up, || format!("set {name} up")).await
}

/// Sets the container's end up and gives it its addresses and routes. `netlink` is connected in
/// the container's namespace.
pub async fn configure_interface(
    netlink: &Netlink,
    spec: &InterfaceSpec<'_>,
) -> Result<(), DatapathError> {
    let InterfaceSpec { index, ifname, .. } = *spec;
    let what = || format!("configure {ifname} in the container");
    let up = link::to_change(LinkUnspec::new_with_index(index).up().build());
    let addresses = spec.addresses.iter().map(|address| set_address(index, *address));
    let routes = spec.routes.iter().map(|route| route_request(index, route, Existing::Keep));
    let requests = std::iter::once(up).chain(addresses).chain(routes).collect();
    let mut outcomes = netlink.exchange(requests, what).await?;

    // Runtimes may create containers without IPv6; an IPv6 address says that this one is to have
    // it. Most have it anyway, so the namespace is entered for the others only.
    let no_ipv6 = |(address, outcome): (&IpNetwork, &Outcome)| {
        address.is_ipv6() && outcome.as_ref().is_err_and(|refusal| refusal.errno == libc::EACCES)
    };
    if spec.addresses.iter().zip(&outcomes[1..]).any(no_ipv6) {
        spec.netns.run(Entry::NewThread, || sysctl::allow_ipv6(ifname))??;
        repeat_refused(netlink, spec, &mut outcomes).await?;
    }
    netlink::first_refusal(outcomes, |request| match request.checked_sub(1) {
        None => format!("set up {ifname} in the container"),
        Some(n) => match spec.addresses.get(n) {
            Some(address) => format!("add address {address} to {ifname} in the container"),
            None => spec.routes.get(n - spec.addresses.len()).map_or_else(what, |route| {
                format!("{} ({ifname} in the container)", describe_route(index, route))
            }),
        },
    })
}

/// Repeats the addresses and routes that were refused; the others exist already.
async fn repeat_refused(
    netlink: &Netlink,
    spec: &InterfaceSpec<'_>,
    outcomes: &mut [Outcome],
) -> Result<(), DatapathError> {
    let addresses = spec.addresses.iter().map(|address| set_address(spec.index, *address));
    let routes = spec.routes.iter().map(|route| route_request(spec.index, route, Existing::Keep));
    let refused = outcomes[1..].iter_mut().zip(addresses.chain(routes));
    let refused = refused.filter(|(outcome, _)| outcome.is_err());
    let (outcomes, requests): (Vec<&mut Outcome>, Vec<Request>) = refused.unzip();
    let what = || format!("configure {} in the container", spec.ifname);
    for (outcome, repeated) in outcomes.into_iter().zip(netlink.exchange(requests, what).await?) {
        *outcome = repeated;
    }
    Ok(())
}

fn set_address(index: u32, address: IpNetwork) -> Request {
    address_request(index, address, PrefixRoute::Automatic)
}

/// Sets a host end down, if it is there: nothing passes it any more.
pub async fn disconnect_port(netlink: &Netlink, host_end: &str) -> Result<(), DatapathError> {
    let down = LinkUnspec::new_with_name(host_end).down();
    match netlink.change_link(down.build(), || format!("set {host_end} down")).await {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
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
