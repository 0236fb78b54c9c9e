//! Containers' ports that have lost their bridge or the entry of their MAC in it, and the way back.
//!
//! A bridge that is deleted leaves its ports behind, without the settings that they had as ports.

use std::fmt;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::LinkUnspec;
use weft_model::MacAddr;

use crate::DatapathError;
use crate::attach::{self, Hairpin, PortSecurity, entry};
use crate::link::{Link, link_of, to_show};
use crate::netlink::Netlink;

/// Questions in one message: the answers fit the socket's receive buffer.
const BATCH: usize = 64;

/// The MACs of the other ends of veths, wherever those are, in the same order.
pub async fn other_ends_macs(
    netlink: &Netlink,
    host_ends: &[Link],
) -> Result<Vec<Option<MacAddr>>, DatapathError> {
    let what = || "read the other ends of veths".to_owned();
    let mut macs = vec![None; host_ends.len()];
    let tied: Vec<(usize, LinkMessage)> =
        host_ends.iter().enumerate().filter_map(|(at, end)| Some((at, other_end(end)?))).collect();
    for batch in tied.chunks(BATCH) {
        let requests = batch.iter().map(|(_, link)| to_show(link.clone())).collect();
        for ((at, _), outcome) in batch.iter().zip(netlink.exchange(requests, what).await?) {
            // That of a namespace that has gone (EINVAL, ENODEV) has none.
            macs[*at] = outcome.ok().and_then(|shown| shown.iter().find_map(link_of)?.mac);
        }
    }
    Ok(macs)
}

/// The other end. The kernel shows a link of another namespace by this one's number for it: no need
/// to enter.
fn other_end(host_end: &Link) -> Option<LinkMessage> {
    let mut request = LinkUnspec::new_with_index(host_end.tied_to?);
    if let Some(netns) = host_end.tied_to_netns {
        request = request.append_extra_attribute(LinkAttribute::IfNetnsId(netns));
    }
    Some(request.build())
}

/// The MAC of the other end of a veth, wherever that is.
pub async fn other_ends_mac(
    netlink: &Netlink,
    host_end: &Link,
) -> Result<Option<MacAddr>, DatapathError> {
    Ok(other_ends_macs(netlink, std::slice::from_ref(host_end)).await?.pop().flatten())
}

/// A container's port that drops the frames of its interface, or does not get the frames to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPort {
    /// The host end.
    pub port: Link,
    /// The MAC that the interface has.
    pub mac: MacAddr,
    /// The MACs that the port lets through.
    pub lets_through: Vec<MacAddr>,
    /// The device that has the entry of the interface's MAC, for people.
    pub holder: Option<String>,
}

impl fmt::Display for ClosedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port: Link { name, .. }, mac, lets_through, holder } = self;
        match &lets_through[..] {
            [] => write!(f, "port {name} lets no frame through, and the interface has {mac}")?,
            macs => {
                let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
                let macs = macs.join(" and ");
                write!(f, "port {name} lets through {macs} only, and the interface has {mac}")?;
            }
        }
        holder.as_ref().map_or(Ok(()), |holder| write!(f, ", which is that of {holder}"))
    }
}

/// Those of `host_ends`, ports of `bridge`, that are closed to the MAC of their interface. Costs
/// two questions to the kernel for each.
pub async fn closed(
    netlink: &Netlink,
    bridge: u32,
    host_ends: &[Link],
) -> Result<Vec<ClosedPort>, DatapathError> {
    let macs = other_ends_macs(netlink, host_ends).await?;
    let (ports, macs): (Vec<&Link>, Vec<MacAddr>) =
        host_ends.iter().zip(macs).filter_map(|(port, mac)| Some((port, mac?))).unzip();
    let mut closed = vec![];
    for ((port, mac), entry) in
        ports.into_iter().zip(&macs).zip(entry::entries(netlink, bridge, &macs).await?)
    {
        if entry.is_some_and(|entry| entry.port == port.index) {
            continue;
        }
        let holder = match entry {
            Some(entry) => Some(entry::describe(netlink, bridge, entry.port).await?),
            None => None,
        };
        let lets_through = entry::let_through(netlink, port.index).await?;
        closed.push(ClosedPort { port: port.clone(), mac: *mac, lets_through, holder });
    }
    Ok(closed)
}

/// Returns whether the host end of a container's veth is what it should be: a port of `bridge`, and
/// closed to all but its own MAC.
pub fn is_joined(host_end: &Link, bridge: u32) -> bool {
    host_end.bridge == Some(bridge) && host_end.port.locked && host_end.up
}

/// Makes the host end of a container's veth a port of the bridge again, with the settings that it
/// was made with; `mac` is the container's. It is down until it is protected.
pub async fn join(
    netlink: &Netlink,
    host_end: &Link,
    bridge: u32,
    mac: MacAddr,
    takes_from: &[u32],
) -> Result<(), DatapathError> {
    let request = LinkUnspec::new_with_index(host_end.index).down().controller(bridge);
    let name = host_end.name.as_str();
    netlink.change_link(request.build(), || format!("make {name} a port of its bridge")).await?;
    open(netlink, host_end, bridge, mac, takes_from).await
}

/// Protects the host end of a container's veth, a port of `bridge`, as it was when it was made, and
/// opens it for `mac`.
pub async fn open(
    netlink: &Netlink,
    host_end: &Link,
    bridge: u32,
    mac: MacAddr,
    takes_from: &[u32],
) -> Result<(), DatapathError> {
    let hairpin = if host_end.port.hairpin { Hairpin::On } else { Hairpin::Off };
    let (index, name, alias) = (host_end.index, host_end.name.as_str(), host_end.alias.as_str());
    let security = PortSecurity { index, name, alias, bridge, mac, takes_from, hairpin };
    attach::secure_port(netlink, &security).await
}
