//! The three tables as values: what they should hold, and the difference of two states.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use weft_model::{HostNumber, MacAddr, Network, PoolIndex};

use crate::peers::{Endpoint, PeerTable, Remote};

/// The entries of the three tables, as they are or should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Neighbours of the bridge.
    pub neighbours: HashMap<IpAddr, MacAddr>,
    /// The bridge's FDB, as far as it points at the VXLAN port.
    pub bridge: HashSet<MacAddr>,
    /// The VXLAN device's FDB.
    pub vxlan: HashMap<MacAddr, IpAddr>,
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

impl Change {
    /// Returns whether the change removes its entry.
    pub fn is_removal(self) -> bool {
        matches!(self, Self::RemoveNeighbour(_) | Self::RemoveBridge(_) | Self::RemoveVxlan(..))
    }
}

impl Entries {
    /// The entries that `table` asks for in `network`.
    pub fn of(network: &Network, table: &PeerTable) -> Self {
        let mut entries = Self::default();
        entries.add(network, table, table.block_addresses(network));
        entries.add_endpoints(network, table, table.endpoints.keys().copied());
        entries
    }

    /// The entries that `table` asks for, as far as these addresses go.
    fn for_addresses(network: &Network, table: &PeerTable, addresses: &BTreeSet<IpAddr>) -> Self {
        let mut entries = Self::default();
        entries.add(network, table, addresses.iter().copied());
        entries.add_endpoints(network, table, addresses.iter().copied());
        entries
    }

    /// Adds the addresses among `addresses` that the rule of blocks applies to.
    fn add(
        &mut self,
        network: &Network,
        table: &PeerTable,
        addresses: impl Iterator<Item = IpAddr>,
    ) {
        for address in addresses.filter(|address| !table.endpoints.contains_key(address)) {
            self.insert(address, table.remote(network, address));
        }
    }

    /// Adds the addresses among `addresses`, which ascend, that have an endpoint.
    ///
    /// Addresses of one container share its MAC, and a MAC lies behind one VTEP. Tables that give
    /// it two contradict themselves; then an endpoint counts more than a block, and the greater
    /// address more than the lesser: the outcome must not depend on the order of changes.
    fn add_endpoints(
        &mut self,
        network: &Network,
        table: &PeerTable,
        addresses: impl Iterator<Item = IpAddr>,
    ) {
        for address in addresses.filter(|address| table.endpoints.contains_key(address)) {
            self.insert(address, table.remote(network, address));
        }
    }

    fn insert(&mut self, address: IpAddr, remote: Option<Remote>) {
        if let Some(Remote { mac, vtep }) = remote {
            self.neighbours.insert(address, mac);
            self.bridge.insert(mac);
            self.vxlan.insert(mac, vtep);
        }
    }

    /// The changes that turn `self` into `desired`, in an order that leaves no gap: a MAC is known
    /// before an address points at it, and forgotten after; what moves is replaced.
    pub fn changes_to<'a>(&'a self, desired: &'a Self) -> impl Iterator<Item = Change> + 'a {
        let set_vxlan =
            desired.vxlan.iter().filter(|(mac, vtep)| self.vxlan.get(mac) != Some(vtep));
        let set_bridge = desired.bridge.difference(&self.bridge);
        let set_neighbours = desired.neighbours.iter();
        let set_neighbours =
            set_neighbours.filter(|(ip, mac)| self.neighbours.get(ip) != Some(mac));
        let neighbours = self.neighbours.keys().filter(|ip| !desired.neighbours.contains_key(ip));
        let bridge = self.bridge.difference(&desired.bridge);
        let vxlan = self.vxlan.iter().filter(|(mac, _)| !desired.vxlan.contains_key(mac));
        set_vxlan
            .map(|(mac, vtep)| Change::SetVxlan(*mac, *vtep))
            .chain(set_bridge.copied().map(Change::SetBridge))
            .chain(set_neighbours.map(|(ip, mac)| Change::SetNeighbour(*ip, *mac)))
            .chain(neighbours.copied().map(Change::RemoveNeighbour))
            .chain(bridge.copied().map(Change::RemoveBridge))
            .chain(vxlan.map(|(mac, vtep)| Change::RemoveVxlan(*mac, *vtep)))
    }

    /// Makes one change.
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

/// The changes that turn the entries of `old` into those of `new`, without a look at what is the
/// same in both: the addresses that changed, and those that share a MAC with one of them.
pub fn changes_between(network: &Network, old: &PeerTable, new: &PeerTable) -> Vec<Change> {
    let mut addresses = old.changed(new, network);
    if addresses.is_empty() {
        return vec![];
    }
    let remotes = |address: &IpAddr| {
        [old.remote(network, *address), new.remote(network, *address)].into_iter().flatten()
    };
    let macs: BTreeSet<MacAddr> =
        addresses.iter().flat_map(remotes).map(|remote| remote.mac).collect();
    // A block's addresses share their MAC with those of the same host number in the other family.
    let hosts = addresses.iter().filter_map(|address| network.locate(*address));
    let hosts = hosts.chain(macs.iter().filter_map(|mac| network.host_of(*mac)));
    let hosts: BTreeSet<(PoolIndex, HostNumber)> = hosts.collect();
    let siblings = hosts.iter().filter_map(|(pool, host)| network.addresses(*pool, *host));
    addresses.extend(siblings.flat_map(|addresses| addresses.iter()));
    for endpoints in [&old.endpoints, &new.endpoints] {
        let sharing = endpoints.iter().filter(
            |(_, endpoint)| matches!(endpoint, Endpoint::At { mac, .. } if macs.contains(mac)),
        );
        addresses.extend(sharing.map(|(address, _)| *address));
    }
    let of = |table| Entries::for_addresses(network, table, &addresses);
    // Other MACs are not complete here, and have not changed.
    let complete = |change: &Change| match change {
        Change::SetNeighbour(..) | Change::RemoveNeighbour(_) => true,
        Change::SetVxlan(mac, _)
        | Change::SetBridge(mac)
        | Change::RemoveBridge(mac)
        | Change::RemoveVxlan(mac, _) => macs.contains(mac),
    };
    of(old).changes_to(&of(new)).filter(complete).collect()
}

#[cfg(test)]
mod tests;
