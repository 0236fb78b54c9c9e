//! Use of a network's addresses and blocks, as far as this node can know.
//!
//! The cluster knows who owns which block and which addresses are lent. How many addresses of a
//! block are held only its owner knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use weft_allocator::claim::count_blocks;
use weft_ledger::{Holder, Ledger};
use weft_model::{
    Block, Endpoint, HostNumber, Network, NetworkName, NodeName, Pool, PoolIndex, Subnet,
};

use weft_allocator::AllocatorError;
use weft_cluster::{Cluster, Stored, networks};

use crate::records::Files;

/// Use of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkUsage {
    /// The network.
    pub network: NetworkName,
    /// Number of addresses for containers and hosts.
    pub addresses: u64,
    /// Number of them in blocks that have an owner.
    pub owned: u64,
    /// Number of blocks that its pools are cut into.
    pub blocks_total: u64,
    /// Its pools.
    pub pools: Vec<PoolUsage>,
    /// The nodes that own blocks of it or have borrowed addresses.
    pub nodes: Vec<NodeUsage>,
    /// The blocks that have an owner.
    pub blocks: Vec<BlockUsage>,
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
    /// Number of them in blocks that have an owner.
    pub owned: u64,
    /// Number of them in blocks that have none.
    pub unowned: u64,
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
    /// Held by containers of the owner and by the owner itself; absent: only the owner knows.
    pub held: Option<u64>,
    /// In use on other nodes.
    pub lent: u64,
    /// To be had; absent: only the owner knows.
    pub free: Option<u64>,
}

impl Parts {
    /// Number of addresses in use, if that is known.
    pub fn used(&self) -> Option<u64> {
        Some(self.held? + self.lent)
    }

    fn add(&mut self, other: Self) {
        self.held = self.held.zip(other.held).map(|(a, b)| a + b);
        self.free = self.free.zip(other.free).map(|(a, b)| a + b);
        self.lent += other.lent;
    }
}

/// Reads what the cluster and this node know of the use of `network`.
pub async fn read(
    cluster: &Cluster,
    data_dir: &std::path::Path,
    network: &Network,
) -> Result<NetworkUsage, AllocatorError> {
    let mut own = BTreeMap::new();
    if let Some(cached) = networks::cached(data_dir, network.name())? {
        let ledger = Ledger::open(data_dir, cached)?;
        let lent = lent(&Files::read(&ledger)?, &ledger);
        for (block, counts) in ledger.usage()? {
            let lent = lent.get(&block).copied().unwrap_or(0);
            let held = u64::from(counts.reserved).saturating_sub(lent);
            let free = Some(u64::from(counts.free));
            own.insert(block, Parts { held: Some(held), lent, free });
        }
    }
    let blocks = cluster.blocks(&network.id()).await?;
    let endpoints = cluster.endpoints(&network.id()).await?;
    Ok(of(network, &blocks, &endpoints, &own))
}

/// Number of addresses of each own block that are set aside for other nodes.
fn lent(files: &Files, ledger: &Ledger) -> BTreeMap<Block, u64> {
    let mut lent = BTreeMap::new();
    for reservation in &files.reservations {
        if matches!(reservation.holder, Holder::Lent { .. })
            && let Some(block) = ledger.network().block_at(reservation.pool, reservation.host)
        {
            *lent.entry(block).or_default() += 1;
        }
    }
    lent
}

/// Use of `network` from the store's entries and from what this node knows of its `own` blocks.
pub fn of(
    network: &Network,
    blocks: &BTreeMap<Block, NodeName>,
    endpoints: &BTreeMap<IpAddr, Stored<Endpoint>>,
    own: &BTreeMap<Block, Parts>,
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
        parts: own.get(block).copied().unwrap_or_else(|| {
            let lent = lent.get(block).map_or(0, |hosts| hosts.len() as u64);
            Parts { held: None, lent, free: None }
        }),
    };
    let blocks: Vec<BlockUsage> = blocks.iter().map(block_usage).collect();

    let mut nodes: BTreeMap<&NodeName, NodeUsage> = BTreeMap::new();
    let unused = |name: &NodeName| NodeUsage {
        node: name.clone(),
        blocks: 0,
        addresses: 0,
        borrowed: 0,
        parts: Parts { held: Some(0), lent: 0, free: Some(0) },
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
                owned,
                unowned: addresses.saturating_sub(owned),
            }
        })
        .collect();
    NetworkUsage {
        network: network.name().clone(),
        addresses: pools.iter().map(|pool| pool.addresses).sum(),
        owned: pools.iter().map(|pool| pool.owned).sum(),
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
mod tests {
    use super::*;
    use weft_model::pool::{FamilyRecord, PoolRecord};
    use weft_model::{NetworkSpec, Vni};
    use weft_store::Revision;

    fn network(pool: PoolRecord) -> Network {
        NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
            .unwrap()
    }

    fn ipv4(subnet: &str) -> PoolRecord {
        let family = FamilyRecord::new(subnet.parse().unwrap());
        PoolRecord { ipv4: Some(family), ..PoolRecord::default() }
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn counts_addresses_as_they_are_handed_out() {
        let plain = ipv4("10.9.0.0/22");
        let mut odd = ipv4("10.9.0.0/22");
        odd.exclude = vec!["10.9.1.0/25".parse().unwrap(), "10.9.1.64/32".parse().unwrap()];
        let mut ranged = ipv4("10.9.0.0/22");
        if let Some(family) = &mut ranged.ipv4 {
            family.range_start = Some("10.9.0.7".parse().unwrap());
            family.range_end = Some("10.9.2.200".parse().unwrap());
            family.gateway = Some("10.9.1.9".parse().unwrap());
        }
        let mut both = ipv4("10.9.0.0/22");
        both.ipv6 = Some(FamilyRecord::new("fd00:9::/64".parse().unwrap()));
        both.exclude = vec!["fd00:9::20/124".parse().unwrap()];
        for record in [plain, odd, ranged, both] {
            let network = network(record);
            let (_, pool) = network.pools().next().unwrap();
            for (from, to) in [(0, 1023), (0, 63), (64, 127), (250, 260), (960, 1023), (9, 9)] {
                let one_by_one = (from..=to).filter(|h| pool.is_assignable(HostNumber::new(*h)));
                let counted = assignable(pool, HostNumber::new(from), HostNumber::new(to));
                assert_eq!(counted, one_by_one.count() as u64, "{from} to {to} of {pool:?}");
            }
        }
    }

    #[test]
    fn counts_addresses_of_vast_pool_at_once() {
        let family = FamilyRecord::new("fd00:9::/64".parse().unwrap());
        let network = network(PoolRecord { ipv6: Some(family), ..PoolRecord::default() });
        let usage = of(&network, &BTreeMap::new(), &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(usage.addresses, (1 << 32) - 2, "the subnet's own and the gateway are left out");
        assert_eq!((usage.owned, usage.pools[0].unowned), (0, usage.addresses));
    }

    #[test]
    fn leaves_open_what_only_the_owner_knows() {
        let network = network(ipv4("10.9.0.0/24"));
        let blocks = BTreeMap::from([
            ("0-0-4".parse().unwrap(), node("a")),
            ("0-16-4".parse().unwrap(), node("b")),
            ("0-32-4".parse().unwrap(), node("b")),
        ]);
        let lent = Endpoint {
            node: node("c"),
            mac: "02:42:0a:09:00:11".parse().unwrap(),
            lender: Some(node("b")),
            loan: None,
        };
        let endpoints = BTreeMap::from([(
            "10.9.0.17".parse().unwrap(),
            Stored { record: lent, revision: Revision::new(1) },
        )]);
        let parts = Parts { held: Some(2), lent: 1, free: Some(11) };
        let own = BTreeMap::from([("0-0-4".parse().unwrap(), parts)]);
        let usage = of(&network, &blocks, &endpoints, &own);
        assert_eq!((usage.addresses, usage.owned, usage.pools[0].unowned), (253, 46, 207));
        let [a, b, c] = &usage.nodes[..] else { panic!("{:?}", usage.nodes) };
        assert_eq!((a.addresses, a.parts.used()), (14, Some(3)));
        assert_eq!((b.blocks, b.addresses, b.parts.used(), b.parts.lent), (2, 32, None, 1));
        assert_eq!((c.blocks, c.borrowed), (0, 1));
    }
}
