//! The three tables of remote addresses: what they should hold, what they hold, and the difference.
//!
//! Comparing whole tables heals whatever went wrong before: an entry that was missed, one that the
//! kernel flushed with its device, one that somebody else removed. Events are only a reason to look.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use log::warn;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_model::MacAddr;

use crate::DatapathError;
use crate::netlink::Netlink;

/// The tables, as they are or should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Neighbours of the bridge.
    pub neighbours: HashMap<IpAddr, MacAddr>,
    /// The bridge's FDB, as far as it points at the VXLAN port.
    pub bridge: HashSet<MacAddr>,
    /// The VXLAN device's FDB.
    pub vxlan: HashMap<MacAddr, IpAddr>,
}

impl Tables {
    /// Adds what it takes to reach `address`. Addresses of one container share its MAC.
    pub fn insert(&mut self, address: IpAddr, mac: MacAddr, vtep: IpAddr) {
        self.neighbours.insert(address, mac);
        self.bridge.insert(mac);
        self.vxlan.insert(mac, vtep);
    }

    /// What turns `self` into `desired`, in an order that leaves no gap: a MAC is known before an
    /// address points at it, and forgotten after.
    pub fn changes_to(&self, desired: &Self) -> Vec<Change> {
        let mut changes = vec![];
        for (mac, vtep) in &desired.vxlan {
            if self.vxlan.get(mac) != Some(vtep) {
                changes.push(Change::SetVxlan(*mac, *vtep));
            }
        }
        changes.extend(desired.bridge.difference(&self.bridge).copied().map(Change::SetBridge));
        for (address, mac) in &desired.neighbours {
            if self.neighbours.get(address) != Some(mac) {
                changes.push(Change::SetNeighbour(*address, *mac));
            }
        }
        for address in self.neighbours.keys() {
            if !desired.neighbours.contains_key(address) {
                changes.push(Change::RemoveNeighbour(*address));
            }
        }
        changes.extend(self.bridge.difference(&desired.bridge).copied().map(Change::RemoveBridge));
        for (mac, vtep) in &self.vxlan {
            if !desired.vxlan.contains_key(mac) {
                changes.push(Change::RemoveVxlan(*mac, *vtep));
            }
        }
        changes
    }

    /// The tables after a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::SetVxlan(mac, vtep) => drop(self.vxlan.insert(mac, vtep)),
            Change::SetBridge(mac) => drop(self.bridge.insert(mac)),
            Change::SetNeighbour(address, mac) => drop(self.neighbours.insert(address, mac)),
            Change::RemoveNeighbour(address) => drop(self.neighbours.remove(&address)),
            Change::RemoveBridge(mac) => drop(self.bridge.remove(&mac)),
            Change::RemoveVxlan(mac, _) => drop(self.vxlan.remove(&mac)),
        }
    }
}

/// A change of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Frames to this MAC go to this VTEP.
    SetVxlan(MacAddr, IpAddr),
    /// Frames to this MAC go to the VXLAN port.
    SetBridge(MacAddr),
    /// This address has this MAC.
    SetNeighbour(IpAddr, MacAddr),
    /// This address is no longer known.
    RemoveNeighbour(IpAddr),
    /// This MAC no longer goes to the VXLAN port.
    RemoveBridge(MacAddr),
    /// This MAC no longer goes to this VTEP.
    RemoveVxlan(MacAddr, IpAddr),
}

/// What a reconciliation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries added or changed.
    pub set: usize,
    /// Entries removed.
    pub removed: usize,
    /// Entries that the kernel refused.
    pub failed: usize,
}

impl Report {
    /// Whether anything was different.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries set, {} removed", self.set, self.removed)?;
        if self.failed > 0 {
            write!(f, ", {} refused", self.failed)?;
        }
        Ok(())
    }
}

/// Makes the kernel's tables those in `desired`.
pub async fn reconcile(
    netlink: &Netlink,
    bridge: u32,
    vxlan: u32,
    desired: &Tables,
) -> Result<Report, DatapathError> {
    let observed = observe(netlink, bridge, vxlan).await?;
    let mut report = Report::default();
    for change in observed.changes_to(desired) {
        match make(netlink, bridge, vxlan, change).await {
            Ok(()) if is_removal(change) => report.removed += 1,
            Ok(()) => report.set += 1,
            Err(error) if is_removal(change) && error.is_missing() => {}
            Err(error) => {
                if report.failed == 0 {
                    warn!("{error}");
                }
                report.failed += 1;
            }
        }
    }
    Ok(report)
}

/// The kernel's tables as they are.
pub async fn observe(netlink: &Netlink, bridge: u32, vxlan: u32) -> Result<Tables, DatapathError> {
    let mut tables = Tables::default();
    // One dump shows both FDBs of a bridge's port.
    for entry in dump(netlink, AddressFamily::Bridge, vxlan).await? {
        let Some(mac) = entry.mac.filter(|mac| mac.bytes() != [0; 6]) else { continue };
        if entry.flags.contains(NeighbourFlags::Own) {
            tables.vxlan.extend(entry.address.map(|vtep| (mac, vtep)));
        } else if entry.state == NeighbourState::Noarp {
            // Of the bridge's entries the static ones are ours; the port's own MAC is permanent.
            tables.bridge.insert(mac);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for entry in dump(netlink, family, bridge).await? {
            if entry.state == NeighbourState::Permanent
                && let (Some(address), Some(mac)) = (entry.address, entry.mac)
                && !address.is_multicast()
            {
                tables.neighbours.insert(address, mac);
            }
        }
    }
    Ok(tables)
}

struct Entry {
    flags: NeighbourFlags,
    state: NeighbourState,
    mac: Option<MacAddr>,
    address: Option<IpAddr>,
}

async fn dump(
    netlink: &Netlink,
    family: AddressFamily,
    index: u32,
) -> Result<Vec<Entry>, DatapathError> {
    let mut question = NeighbourMessage::default();
    question.header.family = family;
    // The FDB is filtered by the header, neighbours by an attribute (`rtnl_fdb_dump`,
    // `neigh_valid_dump_req`).
    if family == AddressFamily::Bridge {
        question.header.ifindex = index;
    } else {
        question.attributes.push(NeighbourAttribute::IfIndex(index));
    }
    let question = RouteNetlinkMessage::GetNeighbour(question);
    let answer = netlink
        .dump(question, || format!("list neighbours of the link with index {index}"))
        .await?;
    let of_link = |message: &NeighbourMessage| message.header.ifindex == index;
    let entries = answer.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewNeighbour(message) if of_link(message) => Some(read(message)),
        _ => None,
    });
    Ok(entries.collect())
}

fn read(message: &NeighbourMessage) -> Entry {
    let mut entry = Entry {
        flags: message.header.flags,
        state: message.header.state,
        mac: None,
        address: None,
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                entry.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr::from_bytes);
            }
            NeighbourAttribute::Destination(address) => entry.address = ip(address),
            _ => {}
        }
    }
    entry
}

/// The library does not know the family of a VTEP, since the message is of the bridge's family.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

fn is_removal(change: Change) -> bool {
    matches!(change, Change::RemoveNeighbour(_) | Change::RemoveBridge(_) | Change::RemoveVxlan(..))
}

async fn make(
    netlink: &Netlink,
    bridge: u32,
    vxlan: u32,
    change: Change,
) -> Result<(), DatapathError> {
    let mut message = NeighbourMessage::default();
    let (mac, address) = match change {
        Change::SetVxlan(mac, vtep) | Change::RemoveVxlan(mac, vtep) => {
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = vxlan;
            message.header.flags = NeighbourFlags::Own;
            message.header.state = NeighbourState::Permanent;
            (Some(mac), Some(vtep))
        }
        Change::SetBridge(mac) | Change::RemoveBridge(mac) => {
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = vxlan;
            message.header.flags = NeighbourFlags::Controller;
            message.header.state = NeighbourState::Noarp;
            (Some(mac), None)
        }
        Change::SetNeighbour(address, _) | Change::RemoveNeighbour(address) => {
            message.header.family =
                if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            message.header.ifindex = bridge;
            message.header.state = NeighbourState::Permanent;
            let mac = match change {
                Change::SetNeighbour(_, mac) => Some(mac),
                _ => None,
            };
            (mac, Some(address))
        }
    };
    message.attributes.extend(address.map(|address| {
        NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        })
    }));
    message
        .attributes
        .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec())));
    let (message, flags) = if is_removal(change) {
        (RouteNetlinkMessage::DelNeighbour(message), 0)
    } else {
        (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    };
    netlink.request(message, flags, || format!("make peers as they should be: {change:?}")).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(n: u8) -> MacAddr {
        MacAddr::from_bytes([2, 0x42, 0, 0, 0, n])
    }

    fn tables() -> impl Strategy<Value = Tables> {
        let addresses = prop::collection::hash_map(0u8..20, (0u8..20, 0u8..4), 0..20);
        addresses.prop_map(|entries| {
            let mut tables = Tables::default();
            for (host, (n, node)) in entries {
                let address = IpAddr::from([10, 9, 0, host]);
                tables.insert(address, mac(n), IpAddr::from([198, 18, 0, node]));
            }
            tables
        })
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_what_was_desired(a in tables(), b in tables()) {
            let mut now = a.clone();
            for change in a.changes_to(&b) {
                now.apply(change);
            }
            prop_assert_eq!(&now, &b);
            prop_assert!(b.changes_to(&b).is_empty());
        }
    }

    #[test]
    fn two_addresses_of_a_container_share_its_mac() {
        let vtep: IpAddr = "198.18.0.1".parse().unwrap();
        let (v4, v6): (IpAddr, IpAddr) = ("10.9.0.5".parse().unwrap(), "fd00::5".parse().unwrap());
        let mut both = Tables::default();
        both.insert(v4, mac(1), vtep);
        let only_v4 = both.clone();
        both.insert(v6, mac(1), vtep);
        assert_eq!(both.changes_to(&only_v4), [Change::RemoveNeighbour(v6)]);
    }
}
