//! The bridge's entry of a container's MAC (`bridge fdb`): frames to the MAC leave by the entry's
//! port, and a locked port lets a frame in only if the entry of its source is the port's.
//!
//! A MAC has one entry in a bridge. An entry is made with `NLM_F_EXCL`, so that it is never taken
//! from another port unseen: a container that asks for another's MAC, or for the bridge's, would
//! get its frames.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_model::MacAddr;

use super::PortSecurity;
use crate::DatapathError;
use crate::netlink::{self, Netlink, Outcome, Request};

/// Questions in one message: the answers fit the socket's receive buffer.
const BATCH: usize = 128;

/// The entry of a MAC in a bridge's forwarding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The index of the port that has it, or of the bridge if it is the bridge's own.
    pub port: u32,
    /// True if it does not age, and no frame moves it to another port.
    pub is_fixed: bool,
}

fn message(index: u32, mac: MacAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = index;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
    entry
}

fn entry_of_port(port: u32, mac: MacAddr, flags: u16) -> Request {
    let mut entry = message(port, mac);
    entry.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
    entry.header.state = NeighbourState::Noarp;
    Request::change(RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | flags)
}

/// The request that makes the entry of a port; the MAC must have none.
pub(super) fn to_create(port: u32, mac: MacAddr) -> Request {
    entry_of_port(port, mac, NLM_F_EXCL)
}

/// Makes sure that the port has the entry of its MAC, which exists: it is the port's own, or that
/// of a port that it may be taken from.
pub(super) async fn take(
    netlink: &Netlink,
    security: &PortSecurity<'_>,
) -> Result<(), DatapathError> {
    let &PortSecurity { index, name, bridge, mac, takes_from, .. } = security;
    let what = || format!("let {mac} through port {name}");
    let holder = entries(netlink, bridge, &[mac]).await?.pop().flatten();
    match holder {
        // It has gone since.
        None => netlink.request(to_create(index, mac), what).await,
        Some(entry) if entry.port == index || takes_from.contains(&entry.port) => {
            netlink.request(entry_of_port(index, mac, NLM_F_REPLACE), what).await
        }
        Some(entry) => {
            let holder = describe(netlink, bridge, entry.port).await?;
            Err(DatapathError::MacHeld { mac, port: name.to_owned(), holder })
        }
    }
}

/// The device with `index`, which is a bridge or a port of one, for people.
pub async fn describe(netlink: &Netlink, bridge: u32, index: u32) -> Result<String, DatapathError> {
    let Some(link) = netlink.link_with_index(index).await? else {
        return Ok(format!("the device with index {index}"));
    };
    let name = &link.name;
    Ok(match link.alias.strip_prefix("weft:") {
        _ if index == bridge => format!("bridge {name} itself"),
        Some(attachment) if link.is("veth") => format!("{attachment} (port {name})"),
        _ if link.is("vxlan") => format!("another node (port {name})"),
        _ => format!("port {name}"),
    })
}

/// The entries that the MACs have in `bridge`, in the same order.
pub async fn entries(
    netlink: &Netlink,
    bridge: u32,
    macs: &[MacAddr],
) -> Result<Vec<Option<Entry>>, DatapathError> {
    let what = || format!("look for MACs in the bridge with index {bridge}");
    let question = |mac: &MacAddr| {
        let mut question = message(0, *mac);
        question.attributes.push(NeighbourAttribute::Controller(bridge));
        Request::get(RouteNetlinkMessage::GetNeighbour(question))
    };
    let shown = |outcome: Outcome| match outcome {
        Ok(answer) => Ok(answer.iter().find_map(|message| Some(entry_in(message)?.0))),
        Err(refusal) => match netlink::refused(what(), refusal) {
            error if error.is_missing() => Ok(None),
            error => Err(error),
        },
    };
    let mut all = vec![];
    for batch in macs.chunks(BATCH) {
        let outcomes = netlink.exchange(batch.iter().map(question).collect(), what).await?;
        all.extend(outcomes.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}

/// The MACs that a port lets through. The kernel walks the bridge's whole table for them.
pub async fn let_through(netlink: &Netlink, port: u32) -> Result<Vec<MacAddr>, DatapathError> {
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    question.header.ifindex = port;
    let question = RouteNetlinkMessage::GetNeighbour(question);
    let what = || format!("list MACs of the port with index {port}");
    let answer = netlink.dump(question, what).await?;
    let mut macs: Vec<MacAddr> = answer
        .iter()
        .filter_map(entry_in)
        .filter(|(entry, _)| entry.port == port && entry.is_fixed)
        .map(|(_, mac)| mac)
        .collect();
    // An entry for each VLAN of the port.
    macs.sort_unstable();
    macs.dedup();
    Ok(macs)
}

/// Gives a bridge the entry of its own MAC back, from whatever port has it: without it the host
/// takes no frame that is for it.
pub async fn restore_own(
    netlink: &Netlink,
    bridge: u32,
    mac: MacAddr,
) -> Result<(), DatapathError> {
    let mut entry = message(bridge, mac);
    entry.header.flags = NeighbourFlags::Own;
    entry.header.state = NeighbourState::Permanent;
    let entry = RouteNetlinkMessage::NewNeighbour(entry);
    let request = Request::change(entry, NLM_F_CREATE | NLM_F_REPLACE);
    netlink.request(request, || format!("give the bridge with index {bridge} MAC {mac}")).await
}

/// An entry of a bridge, with its MAC; a device's own table is another.
fn entry_in(message: &RouteNetlinkMessage) -> Option<(Entry, MacAddr)> {
    let RouteNetlinkMessage::NewNeighbour(shown) = message else { return None };
    let mac = shown.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok(),
        _ => None,
    })?;
    let header = &shown.header;
    if header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let is_fixed =
        header.state == NeighbourState::Noarp && header.flags.contains(NeighbourFlags::Sticky);
    Some((Entry { port: header.ifindex, is_fixed }, MacAddr::from_bytes(mac)))
}
