//! Reads what the use of a network is computed from.

use std::collections::BTreeMap;
use std::path::Path;

use weft_allocator::AllocatorError;
use weft_cluster::{Cluster, Members, networks};
use weft_ledger::{HolderKey, Ledger};
use weft_model::{Block, BlockCounts, Network, NetworkName, NodeName, UsageRecord};

use super::{NetworkUsage, Report, Reported, Source, of};

/// Reports of all nodes about the use of their blocks.
#[derive(Debug, Default)]
pub struct Reports {
    records: BTreeMap<NodeName, UsageRecord>,
    members: Members,
}

impl Reports {
    /// Reads the reports in the store, and which nodes are alive.
    pub async fn read(cluster: &Cluster) -> Result<Self, AllocatorError> {
        if cluster.is_single_node() {
            return Ok(Self::default());
        }
        // Reports first: one of a node that dies in between is then known to be stale.
        let records = cluster.usage_records().await?;
        Ok(Self { records, members: cluster.members().await? })
    }

    /// The reports of these records; the nodes that are alive are known from `members`.
    pub fn new(records: BTreeMap<NodeName, UsageRecord>, members: Members) -> Self {
        Self { records, members }
    }

    /// The reports about one network, by node.
    pub fn of(&self, network: &NetworkName) -> BTreeMap<NodeName, Reported> {
        let reported = |(name, record): (&NodeName, &UsageRecord)| {
            let alive = self.members.get(name).is_some_and(|member| member.alive);
            let report = if alive { Report::Current } else { Report::Stale };
            let counts = record.networks.get(network).cloned().unwrap_or_default();
            (name.clone(), Reported { time: Some(record.counted), report, counts })
        };
        self.records.iter().map(reported).collect()
    }
}

/// Reads what the cluster and this node know of the use of `network`.
pub async fn read(
    cluster: &Cluster,
    data_dir: &Path,
    network: &Network,
    reports: &Reports,
) -> Result<NetworkUsage, AllocatorError> {
    let mut reports = reports.of(network.name());
    reports.insert(cluster.node().clone(), own(data_dir, network.name())?);
    let blocks = cluster.blocks(&network.id()).await?;
    let endpoints = cluster.endpoints(&network.id()).await?;
    Ok(of(network, &blocks, &endpoints, &reports))
}

/// Reads what this node's files alone tell of the use of `network`.
pub fn read_files(
    cluster: &Cluster,
    data_dir: &Path,
    network: &Network,
) -> Result<NetworkUsage, AllocatorError> {
    let node = cluster.node();
    let own = own(data_dir, network.name())?;
    let blocks = own.counts.keys().map(|block| (*block, node.clone())).collect();
    let borrowed = match networks::cached(data_dir, network.name())? {
        Some(cached) => Ledger::open(data_dir, cached)?.all_borrowed()?.len() as u64,
        None => 0,
    };
    let reports = BTreeMap::from([(node.clone(), own)]);
    let mut usage = of(network, &blocks, &BTreeMap::new(), &reports);
    usage.source = Source::LocalFiles;
    usage.owned = None;
    for pool in &mut usage.pools {
        (pool.owned, pool.unowned) = (None, None);
    }
    for node in &mut usage.nodes {
        node.borrowed = borrowed;
    }
    Ok(usage)
}

fn own(data_dir: &Path, network: &NetworkName) -> Result<Reported, AllocatorError> {
    let counts = match networks::cached(data_dir, network)? {
        Some(cached) => counts(&Ledger::open(data_dir, cached)?)?,
        None => BTreeMap::new(),
    };
    Ok(Reported { time: None, report: Report::Own, counts })
}

/// Use of each block of this node in a network. Of the reservations only those are read that do not
/// belong to a container of this node; the others are counted by the index.
pub fn counts(ledger: &Ledger) -> Result<BTreeMap<Block, BlockCounts>, AllocatorError> {
    let network = ledger.network();
    let (mut kept, mut lent) = (BTreeMap::<Block, u32>::new(), BTreeMap::<Block, u32>::new());
    for name in weft_files::names_in(&ledger.dir().reservations())? {
        if let Some(HolderKey::Lent(pool, host)) = HolderKey::parse(&name)
            && let Some(block) = network.block_at(pool, host)
        {
            *lent.entry(block).or_default() += 1;
        }
    }
    // Where one cannot be read, all count as held.
    for reservation in ledger.all_kept().unwrap_or_default() {
        if let Some(block) = network.block_at(reservation.pool, reservation.host) {
            *kept.entry(block).or_default() += 1;
        }
    }
    let number = |of: &BTreeMap<Block, u32>, block: &Block| of.get(block).copied().unwrap_or(0);
    let counts = ledger.usage()?.into_iter().map(|(block, counts)| {
        let (kept, lent) = (number(&kept, &block), number(&lent, &block));
        (block, BlockCounts::new(counts.free, counts.reserved, kept, lent))
    });
    Ok(counts.collect())
}
