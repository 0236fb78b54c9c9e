//! Use of a network's addresses and blocks.
//!
//! The cluster knows who owns which block and which addresses are lent. How many addresses of a
//! block are held its owner knows, and reports to the others some seconds later.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use weft_allocator::claim::count_blocks;
use weft_cluster::Stored;
use weft_model::{
    Block, BlockCounts, Endpoint, HostNumber, Network, NetworkName, NodeName, Pool, PoolIndex,
    Subnet,
};

pub use read::{Reports, counts, read, read_files};

/// Use of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkUsage {
    /// The network.
    pub network: NetworkName,
    /// Origin of the numbers.
    pub source: Source,
    /// Number of addresses for containers and hosts.
    pub addresses: u64,
    /// Number of them in blocks that have an owner; absent if only this node's files were read.
    pub owned: Option<u64>,
    /// Number of blocks that its pools are cut into.
    pub blocks_total: u64,
    /// Its pools.
    pub pools: Vec<PoolUsage>,
    /// The nodes that own blocks of it or have borrowed addresses.
    pub nodes: Vec<NodeUsage>,
    /// The blocks that have an owner; this node's alone if only its files were read.
    pub blocks: Vec<BlockUsage>,
}

/// Origin of a network's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The cluster store, and this node's files.
    Cluster,
    /// This node's files alone: the cluster store could not be reached.
    LocalFiles,
}

/// Ownership of a pool's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolUsage {
    /// The pool.
    pub pool: PoolIndex,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Number of its addresses for containers and hosts.
    pub addresses: u64,
    /// Number of them in blocks that have an owner; absent if only this node's files were read.
    pub owned: Option<u64>,
    /// Number of them in blocks that have none; absent likewise.
    pub unowned: Option<u64>,
}

/// A node's part of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeUsage {
    /// The node.
    pub node: NodeName,
    /// Number of blocks that it owns.
    pub blocks: usize,
    /// Number of addresses in these.
    pub addresses: u64,
    /// Number of addresses of other nodes' blocks that it has borrowed.
    pub borrowed: u64,
    /// Use of the addresses in its blocks.
    #[serde(flatten)]
    pub parts: Parts,
    /// Origin of these numbers.
    pub report: Report,
    /// The time of the report, in seconds since 1970; absent for this node and without a report.
    pub reported: Option<u64>,
}

/// Origin of what is known of the use of a node's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// This node's own files.
    Own,
    /// The node's report. Its agent is alive, and reports each change within seconds.
    Current,
    /// The node's last report. Its agent is down; much may have changed since.
    Stale,
    /// There is no report.
    Missing,
}

/// The report of a node, as the others have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The time of the count, in seconds since 1970; absent for this node.
    pub time: Option<u64>,
    /// Its origin.
    pub report: Report,
    /// The counts.
    pub counts: BTreeMap<Block, BlockCounts>,
}

/// Use of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockUsage {
    /// The block.
    pub block: Block,
    /// Its owner.
    pub node: NodeName,
    /// Number of its addresses.
    pub addresses: u64,
    /// Use of these.
    #[serde(flatten)]
    pub parts: Parts,
}

/// Use of the addresses of a block, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// Held by containers of the owner and by the owner itself; absent: the owner has not reported.
    pub held: Option<u64>,
    /// Kept for identities whose containers are gone; absent likewise.
    pub kept: Option<u64>,
    /// In use on other nodes.
    pub lent: u64,
    /// To be had; absent: the owner has not reported.
    pub free: Option<u64>,
}

impl Parts {
    /// Number of addresses that are not free, if that is known.
    pub fn used(&self) -> Option<u64> {
        Some(self.held? + self.kept? + self.lent)
    }

    fn add(&mut self, other: Self) {
        self.held = self.held.zip(other.held).map(|(a, b)| a + b);
        self.kept = self.kept.zip(other.kept).map(|(a, b)| a + b);
        self.free = self.free.zip(other.free).map(|(a, b)| a + b);
        self.lent += other.lent;
    }
}

impl From<BlockCounts> for Parts {
    fn from(counts: BlockCounts) -> Self {
        Self {
            held: Some(counts.held.into()),
            kept: Some(counts.kept.into()),
            lent: counts.lent.into(),
            free: Some(counts.free.into()),
        }
    }
}

/// Use of `network` from the store's entries and from what nodes report of their blocks. What a
/// node reports of a block that is not its own any more does not count.
pub fn of(
    network: &Network,
    blocks: &BTreeMap<Block, NodeName>,
    endpoints: &BTreeMap<IpAddr, Stored<Endpoint>>,
    reports: &BTreeMap<NodeName, Reported>,
) -> NetworkUsage {
    let mut lent: BTreeMap<Block, BTreeSet<HostNumber>> = BTreeMap::new();
    let mut borrowed: BTreeMap<&NodeName, BTreeSet<(PoolIndex, HostNumber)>> = BTreeMap::new();
    for (address, stored) in endpoints {
        let endpoint = &stored.record;
        let Some((pool, host)) = network.locate(*address) else { continue };
        let Some(block) = network.block_of(*address) else { continue };
        let owner = blocks.get(&block);
        if owner.is_some_and(|owner| *owner != endpoint.node) {
            lent.entry(block).or_default().insert(host);
            borrowed.entry(&endpoint.node).or_default().insert((pool, host));
        }
    }
    let block_usage = |(block, node): (&Block, &NodeName)| BlockUsage {
        block: *block,
        node: node.clone(),
        addresses: network
            .pool(block.pool())
            .map_or(0, |pool| assignable(pool, block.first(), block.last())),
        parts: reports.get(node).and_then(|report| report.counts.get(block)).map_or_else(
            || {
                let lent = lent.get(block).map_or(0, |hosts| hosts.len() as u64);
                Parts { held: None, kept: None, lent, free: None }
            },
            |counts| (*counts).into(),
        ),
    };
    let blocks: Vec<BlockUsage> = blocks.iter().map(block_usage).collect();

    let mut nodes: BTreeMap<&NodeName, NodeUsage> = BTreeMap::new();
    let unused = |name: &NodeName| NodeUsage {
        node: name.clone(),
        blocks: 0,
        addresses: 0,
        borrowed: 0,
        parts: BlockCounts::default().into(),
        report: reports.get(name).map_or(Report::Missing, |reported| reported.report),
        reported: reports.get(name).and_then(|reported| reported.time),
    };
    for block in &blocks {
        let node = nodes.entry(&block.node).or_insert_with(|| unused(&block.node));
        node.blocks += 1;
        node.addresses += block.addresses;
        node.parts.add(block.parts);
    }
    for (name, hosts) in borrowed {
        nodes.entry(name).or_insert_with(|| unused(name)).borrowed = hosts.len() as u64;
    }
    let nodes = nodes.into_values().collect();

    let pools: Vec<PoolUsage> = network
        .pools()
        .map(|(index, pool)| {
            let addresses = assignable(pool, pool.first(), pool.last());
            let own = blocks.iter().filter(|block| block.block.pool() == index);
            let owned = own.map(|block| block.addresses).sum();
            PoolUsage {
                pool: index,
                subnets: pool.subnets().collect(),
                addresses,
                owned: Some(owned),
                unowned: Some(addresses.saturating_sub(owned)),
            }
        })
        .collect();
    NetworkUsage {
        network: network.name().clone(),
        source: Source::Cluster,
        addresses: pools.iter().map(|pool| pool.addresses).sum(),
        owned: Some(pools.iter().filter_map(|pool| pool.owned).sum()),
        blocks_total: count_blocks(network),
        pools,
        nodes,
        blocks,
    }
}

/// Number of host numbers from `from` to `to` that may be handed out. A pool may have four thousand
/// million of them, so whole stretches are asked about, between the numbers at which anything can
/// change.
pub fn assignable(pool: &Pool, from: HostNumber, to: HostNumber) -> u64 {
    let (from, end) = (from.get(), to.get().saturating_add(1));
    let mut changes = BTreeSet::from([from, 1, pool.first().get(), pool.last().get() + 1]);
    for family in pool.families() {
        let broadcast = 1u64.checked_shl(u32::from(family.subnet.host_bits())).unwrap_or(u64::MAX);
        changes.extend([broadcast - 1, broadcast]);
        let gateway = family.gateway.and_then(|gateway| family.subnet.host_number(gateway));
        changes.extend(gateway.into_iter().flat_map(|host| [host, host + 1]));
        for excluded in &pool.record().exclude {
            let Some(first) = family.subnet.host_number(excluded.network()) else { continue };
            let bits = if excluded.is_ipv4() { 32 } else { 128 } - excluded.prefix();
            let size = 1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
            changes.extend([first, first.saturating_add(size)]);
        }
    }
    let changes: Vec<u64> = changes.into_iter().filter(|at| (from..end).contains(at)).collect();
    let ends = changes.iter().skip(1).copied().chain([end]);
    let stretches = changes.iter().zip(ends);
    stretches
        .filter(|(start, _)| pool.is_assignable(HostNumber::new(**start)))
        .map(|(start, end)| end - start)
        .sum()
}

#[cfg(test)]
mod tests;
