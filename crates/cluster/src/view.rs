//! Contents of the cluster store, put together in one way for everybody: by one read here, or kept
//! current by [`crate::watcher`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use serde::de::DeserializeOwned;
use weft_model::block::{BlockRecord, MoveRecord};
use weft_model::{
    Block, Endpoint, LoanId, LoanRecord, Network, NetworkId, NetworkName, NodeName, NodeRecord,
};
use weft_store::keys::Group;
use weft_store::{Entry, Revision, keys, typed};

use crate::{Cluster, ClusterError};

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its record.
    pub record: NodeRecord,
    /// Set while its agent keeps its heartbeat up.
    pub alive: bool,
}

/// All nodes that the cluster knows.
pub type Members = BTreeMap<NodeName, Member>;

/// A record with the revision of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub record: T,
    /// The last write of its key.
    pub revision: Revision,
}

/// Blocks and endpoints of one group of blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupView {
    /// The owners of blocks.
    pub blocks: BTreeMap<Block, NodeName>,
    /// The endpoints, by address.
    pub endpoints: BTreeMap<IpAddr, Stored<Endpoint>>,
}

/// All groups of a network, shared with those who still hold an earlier state of it.
pub(crate) type Groups = BTreeMap<Group, Arc<GroupView>>;

/// Requests for loans of one network that this node is asked to answer.
pub type NetworkRequests = BTreeMap<LoanId, Stored<LoanRecord>>;

/// Requests that this node is asked to answer, by network.
pub type Requests = BTreeMap<NetworkId, NetworkRequests>;

/// Requests to this node to hand blocks of one network over.
pub type NetworkMoves = BTreeMap<Block, Stored<MoveRecord>>;

/// Requests to this node to hand blocks over, by network.
pub type Moves = BTreeMap<NetworkId, NetworkMoves>;

/// One network as the cluster store has it, perhaps a little out of date.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// The owners of its blocks.
    pub blocks: BTreeMap<Block, NodeName>,
    /// Its endpoints, by address.
    pub endpoints: BTreeMap<IpAddr, Stored<Endpoint>>,
}

impl NetworkView {
    /// The network with these groups.
    pub(crate) fn of_groups<'a>(groups: impl IntoIterator<Item = &'a Arc<GroupView>>) -> Self {
        let mut view = Self::default();
        for group in groups {
            let GroupView { blocks, endpoints } = &**group;
            view.blocks.extend(blocks.iter().map(|(block, owner)| (*block, owner.clone())));
            view.endpoints.extend(endpoints.iter().map(|(address, e)| (*address, e.clone())));
        }
        view
    }
}

impl Cluster {
    /// All nodes that the cluster knows.
    pub async fn members(&self) -> Result<Members, ClusterError> {
        let alive = self.store().list(keys::alive_prefix()).await?.entries;
        let nodes = self.store().list(keys::nodes_prefix()).await?.entries;
        Ok(members(&read_nodes(&nodes, None), &read_alive(&alive)))
    }

    /// Returns whether a node keeps its heartbeat up.
    pub async fn is_alive(&self, node: &NodeName) -> Result<bool, ClusterError> {
        Ok(self.store().get(&keys::alive(node)).await?.entry.is_some())
    }

    /// The blocks of `network` and their owners.
    pub async fn blocks(
        &self,
        network: &NetworkId,
    ) -> Result<BTreeMap<Block, NodeName>, ClusterError> {
        let records = self.block_records(network).await?;
        Ok(records.into_iter().map(|(block, stored)| (block, stored.record.node)).collect())
    }

    /// The blocks of `network` and their records.
    pub async fn block_records(
        &self,
        network: &NetworkId,
    ) -> Result<BTreeMap<Block, Stored<BlockRecord>>, ClusterError> {
        let entries = self.store().list(&keys::blocks_prefix(network)).await?.entries;
        Ok(read(&entries, |key| Some(keys::block_of(key)?.1)))
    }

    /// The record of one block by itself, as [`block_records`](Self::block_records) has it among
    /// the others.
    pub async fn block_records_at(
        &self,
        network: &NetworkId,
        block: &Block,
    ) -> Result<BTreeMap<Block, Stored<BlockRecord>>, ClusterError> {
        let entry = self.store().get(&keys::block(network, block)).await?.entry;
        Ok(read(entry.as_slice(), |key| Some(keys::block_of(key)?.1)))
    }

    /// The record of one block, if the block has an owner.
    pub async fn block_record(
        &self,
        network: &NetworkId,
        block: &Block,
    ) -> Result<Option<Stored<BlockRecord>>, ClusterError> {
        let entry = self.store().get(&keys::block(network, block)).await?.entry;
        let stored =
            |entry: Entry| Ok(Stored { record: typed::decode(&entry)?, revision: entry.revision });
        entry.map(stored).transpose()
    }

    /// The endpoints of `network`, by address.
    pub async fn endpoints(
        &self,
        network: &NetworkId,
    ) -> Result<BTreeMap<IpAddr, Stored<Endpoint>>, ClusterError> {
        self.endpoints_under(&keys::endpoints_prefix(network)).await
    }

    /// The endpoints in one block of `network`, by address.
    pub async fn endpoints_of_block(
        &self,
        network: &NetworkId,
        block: &Block,
    ) -> Result<BTreeMap<IpAddr, Stored<Endpoint>>, ClusterError> {
        self.endpoints_under(&keys::endpoints_of_block(network, block)).await
    }

    async fn endpoints_under(
        &self,
        prefix: &str,
    ) -> Result<BTreeMap<IpAddr, Stored<Endpoint>>, ClusterError> {
        let entries = self.store().list(prefix).await?.entries;
        Ok(read(&entries, |key| Some(keys::endpoint_of(key)?.2)))
    }

    /// Requests to this node for loans of `network`.
    pub async fn requests(&self, network: &NetworkId) -> Result<NetworkRequests, ClusterError> {
        let prefix = keys::requests_of(self.node(), network);
        let entries = self.store().list(&prefix).await?.entries;
        Ok(read(&entries, |key| Some(keys::request_of(key)?.2)))
    }

    /// One network as the store has it now.
    pub async fn network_view(&self, network: &NetworkId) -> Result<NetworkView, ClusterError> {
        Ok(NetworkView {
            blocks: self.blocks(network).await?,
            endpoints: self.endpoints(network).await?,
        })
    }

    /// All groups of a network's blocks as the store has them now.
    pub(crate) async fn group_views(
        &self,
        network: &NetworkId,
        known: &Groups,
    ) -> Result<Groups, ClusterError> {
        let known = NetworkView::of_groups(known.values());
        let blocks = self.store().list(&keys::blocks_prefix(network)).await?.entries;
        let endpoints = self.store().list(&keys::endpoints_prefix(network)).await?.entries;
        let mut groups: BTreeMap<Group, GroupView> = BTreeMap::new();
        for (block, owner) in read_owners(&blocks, &known.blocks) {
            groups.entry(Group::of(&block)).or_default().blocks.insert(block, owner);
        }
        let of_key = |key: &str| keys::endpoint_of(key).map(|(_, block, address)| (block, address));
        let (endpoints, unreadable) = decode(&endpoints, of_key);
        let kept = unreadable.into_iter().filter_map(|(block, address)| {
            Some(((block, address), known.endpoints.get(&address)?.clone()))
        });
        for ((block, address), endpoint) in endpoints.into_iter().chain(kept) {
            groups.entry(Group::of(&block)).or_default().endpoints.insert(address, endpoint);
        }
        Ok(groups.into_iter().map(|(group, view)| (group, Arc::new(view))).collect())
    }

    /// One group of blocks as the store has it now.
    pub(crate) async fn group_view(
        &self,
        network: &NetworkId,
        group: Group,
        known: Option<&GroupView>,
    ) -> Result<GroupView, ClusterError> {
        let none = GroupView::default();
        let known = known.unwrap_or(&none);
        let blocks = self.store().list(&keys::blocks_of_group(network, group)).await?.entries;
        let prefix = keys::endpoints_of_group(network, group);
        let endpoints = self.store().list(&prefix).await?.entries;
        let (mut endpoints, unreadable) = decode(&endpoints, |key| Some(keys::endpoint_of(key)?.2));
        for address in unreadable {
            if let Some(endpoint) = known.endpoints.get(&address) {
                endpoints.insert(address, endpoint.clone());
            }
        }
        Ok(GroupView { blocks: read_owners(&blocks, &known.blocks), endpoints })
    }
}

/// Owners of blocks by the entries of their records; of those that cannot be read, the `known`
/// ones.
fn read_owners(entries: &[Entry], known: &BTreeMap<Block, NodeName>) -> BTreeMap<Block, NodeName> {
    let of_key = |key: &str| Some(keys::block_of(key)?.1);
    let (records, unreadable) = decode::<_, BlockRecord>(entries, of_key);
    let mut owners: BTreeMap<Block, NodeName> =
        records.into_iter().map(|(block, stored)| (block, stored.record.node)).collect();
    let kept = unreadable.into_iter().filter_map(|b| Some((b, known.get(&b)?.clone())));
    owners.extend(kept.collect::<Vec<_>>());
    owners
}

/// Node records by their entries; of those that cannot be read, the `known` ones.
pub(crate) fn read_nodes(
    entries: &[Entry],
    known: Option<&BTreeMap<NodeName, NodeRecord>>,
) -> BTreeMap<NodeName, NodeRecord> {
    last_known(entries, keys::node_of, known)
}

/// Records by their entries; of those that cannot be read, the `known` ones.
fn last_known<K: Ord, R: DeserializeOwned + Clone>(
    entries: &[Entry],
    key: impl Fn(&str) -> Option<K>,
    known: Option<&BTreeMap<K, R>>,
) -> BTreeMap<K, R> {
    let (records, unreadable) = decode(entries, key);
    let mut all: BTreeMap<K, R> =
        records.into_iter().map(|(key, stored)| (key, stored.record)).collect();
    for key in unreadable {
        if let Some(record) = known.and_then(|known| known.get(&key)) {
            all.insert(key, record.clone());
        }
    }
    all
}

/// Nodes with a heartbeat.
pub(crate) fn read_alive(entries: &[Entry]) -> BTreeSet<NodeName> {
    entries.iter().filter_map(|entry| keys::alive_of(&entry.key)).collect()
}

/// Requests by their entries.
pub(crate) fn read_requests(entries: &[Entry]) -> Requests {
    let mut requests = Requests::new();
    let of = |key: &str| keys::request_of(key).map(|(_, network, loan)| (network, loan));
    for ((network, loan), stored) in read(entries, of) {
        requests.entry(network).or_default().insert(loan, stored);
    }
    requests
}

/// Requests to hand blocks over by their entries.
pub(crate) fn read_moves(entries: &[Entry]) -> Moves {
    let mut moves = Moves::new();
    let of = |key: &str| keys::move_request_of(key).map(|(_, network, block)| (network, block));
    for ((network, block), stored) in read(entries, of) {
        moves.entry(network).or_default().insert(block, stored);
    }
    moves
}

/// Network definitions by their entries; of those that cannot be read, the `known` ones.
pub(crate) fn read_networks(
    entries: &[Entry],
    known: Option<&BTreeMap<NetworkName, Network>>,
) -> BTreeMap<NetworkName, Network> {
    last_known(entries, keys::network_of, known)
}

/// Nodes with their records and heartbeats.
pub(crate) fn members(
    nodes: &BTreeMap<NodeName, NodeRecord>,
    alive: &BTreeSet<NodeName>,
) -> Members {
    let member = |(name, record): (&NodeName, &NodeRecord)| {
        (name.clone(), Member { record: record.clone(), alive: alive.contains(name) })
    };
    nodes.iter().map(member).collect()
}

/// Decodes entries by key, and leaves out those that cannot be read.
pub(crate) fn read<K: Ord, R: DeserializeOwned>(
    entries: &[Entry],
    key: impl Fn(&str) -> Option<K>,
) -> BTreeMap<K, Stored<R>> {
    decode(entries, key).0
}

/// Decodes entries by key. One that cannot be read stops nothing but itself: it is reported once,
/// and its key returned, so that callers with a state before it keep that.
fn decode<K: Ord, R: DeserializeOwned>(
    entries: &[Entry],
    key: impl Fn(&str) -> Option<K>,
) -> (BTreeMap<K, Stored<R>>, Vec<K>) {
    static REPORTED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let (mut records, mut unreadable) = (BTreeMap::new(), vec![]);
    for entry in entries {
        let Some(key) = key(&entry.key) else { continue };
        match typed::decode(entry) {
            Ok(record) => drop(records.insert(key, Stored { record, revision: entry.revision })),
            Err(error) => {
                let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
                if reported.get_or_insert_default().insert(entry.key.clone()) {
                    warn!("{error}; the record is ignored");
                }
                unreadable.push(key);
            }
        }
    }
    (records, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: &str =
        r#"{"name": "red", "vni": 10000, "pools": [{"ipv4": {"subnet": "10.9.0.0/16"}}]}"#;

    fn entry(key: &str, value: &str) -> Entry {
        Entry { key: key.into(), value: value.into(), revision: Revision::new(1) }
    }

    #[test]
    fn ignores_records_that_cannot_be_read() {
        let entries = [
            entry("blocks/red@00000000/0-0/0-0-6", r#"{"node":"a","generation":0}"#),
            entry("blocks/red@00000000/0-0/0-64-6", "{}"),
            entry("blocks/red@00000000/0-0/nonsense", r#"{"node":"a","generation":0}"#),
        ];
        let owners = read_owners(&entries, &BTreeMap::new());
        let owners: Vec<(String, &str)> =
            owners.iter().map(|(block, node)| (block.to_string(), node.as_str())).collect();
        assert_eq!(owners, [("0-0-6".to_owned(), "a")]);
    }

    #[test]
    fn members_are_alive_while_they_have_a_heartbeat() {
        let entries =
            [entry("nodes/a", r#"{"machineId":"1"}"#), entry("nodes/b", r#"{"machineId":"2"}"#)];
        let nodes = read_nodes(&entries, None);
        let alive = read_alive(&[entry("alive/b", "\"2\""), entry("alive/c", "\"3\"")]);
        let members = members(&nodes, &alive);
        let alive: Vec<(&str, bool)> =
            members.iter().map(|(name, member)| (name.as_str(), member.alive)).collect();
        assert_eq!(alive, [("a", false), ("b", true)]);
    }

    #[test]
    fn keeps_last_known_record_of_a_key_that_cannot_be_read() {
        let good = [entry("nodes/a", r#"{"machineId":"1"}"#)];
        let known = read_nodes(&good, None);
        let bad = [entry("nodes/a", "{}"), entry("nodes/b", "{}")];
        assert_eq!(read_nodes(&bad, Some(&known)), known);
        assert!(read_nodes(&[], Some(&known)).is_empty(), "a key that is gone is gone");
        let red = entry("networks/red", RED);
        let known = read_networks(&[red], None);
        assert_eq!(known.len(), 1);
        let bad = [entry("networks/red", "{}"), entry("networks/blue", "{}")];
        assert_eq!(read_networks(&bad, Some(&known)), known);
        assert!(read_networks(&[], Some(&known)).is_empty(), "a key that is gone is gone");
        let block = entry("blocks/red@00000000/0-0/0-0-6", r#"{"node":"a"}"#);
        let known = read_owners(&[block], &BTreeMap::new());
        let bad = [entry("blocks/red@00000000/0-0/0-0-6", "{}")];
        assert_eq!(read_owners(&bad, &known), known);
    }
}
