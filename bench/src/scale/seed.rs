//! The records of a large cluster, written into the store as its nodes would write them.
//!
//! All that the benchmark of scale knows of the layout of keys and records is here.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::runtime::{Builder, Runtime};
use weft_cluster::Cluster;
use weft_model::block::BlockRecord;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Block, Network, NetworkName, NetworkSpec, NodeName, NodeRecord, Subnet, Vni};
use weft_store::{Expected, MAX_OPS, Op, TxnOutcome, keys, typed};

use crate::consul;

/// Prefix of all keys: the one that a node's configuration has if it names none.
const PREFIX: &str = "weft/v1";

/// VTEPs of nodes that exist in the store only count up from here. Nothing is ever sent to them.
const FIRST_VTEP: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

/// Writes records, each at once or many in transactions of the largest size.
pub(crate) struct Seeder {
    runtime: Runtime,
    cluster: Cluster,
}

impl Seeder {
    /// A writer to the Consul at the URL `address`.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let cluster = consul::connect(address, PREFIX, "seeder", Path::new("/run/weft-seeder"))?;
        Ok(Self { runtime, cluster })
    }

    /// Adds the records of `count` nodes that have no agent, and returns their names.
    pub(crate) fn nodes(&self, count: u32) -> Result<Vec<NodeName>> {
        let mut names = vec![];
        let mut ops = vec![];
        for number in 0..count {
            let name = NodeName::new(format!("remote-{number}"))?;
            let record = NodeRecord {
                // As many machines as nodes.
                machine_id: format!("{number:032x}"),
                ..self.cluster.own_record(&[vtep(number)])
            };
            ops.push(Op::create(keys::node(&name), typed::encode(&record)?));
            ops.push(Op::create(keys::alive(&name), typed::encode(&record.machine_id)?));
            names.push(name);
        }
        self.write(&ops)?;
        Ok(names)
    }

    /// Adds the definitions of networks, a name and a subnet each, with VNIs that count up.
    pub(crate) fn networks(&self, wanted: &[(String, Subnet)]) -> Result<Vec<Network>> {
        let mut networks = vec![];
        let mut ops = vec![];
        let mut vni = Vni::FIRST_AUTOMATIC;
        for (name, subnet) in wanted {
            let ipv4 = Some(FamilyRecord::new(*subnet));
            let spec = NetworkSpec {
                pools: vec![PoolRecord { ipv4, ..PoolRecord::default() }],
                ..NetworkSpec::default()
            };
            let network = spec.to_network(&NetworkName::new(name)?, vni)?;
            ops.push(Op::create(keys::network(network.name()), typed::encode(&network)?));
            ops.push(Op::create(keys::vni(vni), typed::encode(network.name())?));
            networks.push(network);
            vni = vni.next().context("there are not as many VNIs")?;
        }
        self.write(&ops)?;
        Ok(networks)
    }

    /// Blocks of the network that no node owns, lowest first.
    pub(crate) fn free_blocks(&self, network: &Network) -> Result<Vec<Block>> {
        let owned = self.runtime.block_on(self.cluster.blocks(&network.id()))?;
        let owned: BTreeSet<Block> = owned.into_keys().collect();
        let all = network.pools().flat_map(|(index, pool)| Block::all_of(index, pool));
        Ok(all.filter(|block| !owned.contains(block)).collect())
    }

    /// Gives blocks to the owners, in turns.
    pub(crate) fn blocks(
        &self,
        network: &Network,
        blocks: &[Block],
        owners: &[NodeName],
    ) -> Result<()> {
        let mut ops = vec![];
        for (block, owner) in blocks.iter().zip(owners.iter().cycle()) {
            ops.push(create_block(network, block, owner)?);
        }
        self.write(&ops)
    }

    /// Claims a block for `owner` by the transaction that a claim ends with, and returns the time
    /// just before it was sent.
    pub(crate) fn claim(
        &self,
        network: &Network,
        block: &Block,
        owner: &NodeName,
    ) -> Result<Instant> {
        let ops = [
            self.unchanged(keys::network(network.name()))?,
            self.unchanged(keys::node(owner))?,
            create_block(network, block, owner)?,
        ];
        let ops = self.cluster.with_revisions(ops.into());
        let started = Instant::now();
        self.transact(&ops)?;
        Ok(started)
    }

    /// Gives a block back, as its owner does when it has been idle.
    pub(crate) fn release(&self, network: &Network, block: &Block) -> Result<()> {
        let key = keys::block(&network.id(), block);
        let Op::Check { expected: Expected::Revision(revision), .. } =
            self.unchanged(key.clone())?
        else {
            bail!("block {block} of network {} has no owner", network.name());
        };
        self.transact(&self.cluster.with_revisions(vec![Op::delete_if(key, revision)]))
    }

    /// Requires that a key is as it is now.
    fn unchanged(&self, key: String) -> Result<Op> {
        let entry = self.runtime.block_on(self.cluster.store().get(&key))?.entry;
        let entry = entry.with_context(|| format!("the store has no key {key}"))?;
        Ok(Op::check(key, Expected::Revision(entry.revision)))
    }

    fn write(&self, ops: &[Op]) -> Result<()> {
        // Each transaction has a random number of its own: Consul ignores a write of the value that
        // a key has, so two that touch one group with the same number would be one change to nodes.
        // Half of the room is for revision keys.
        let parts = ops.chunks(MAX_OPS / 2);
        parts.map(<[Op]>::to_vec).try_for_each(|ops| {
            let ops = self.cluster.with_revisions(ops);
            self.transact(&ops)
        })
    }

    fn transact(&self, ops: &[Op]) -> Result<()> {
        match self.runtime.block_on(self.cluster.store().transact(ops))? {
            TxnOutcome::Committed => Ok(()),
            TxnOutcome::Conflict { key, reason } => bail!("write {key}: {reason}"),
        }
    }
}

fn create_block(network: &Network, block: &Block, owner: &NodeName) -> Result<Op> {
    let record = BlockRecord { node: owner.clone(), generation: 0 };
    Ok(Op::create(keys::block(&network.id(), block), typed::encode(&record)?))
}

fn vtep(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(FIRST_VTEP) + number).into()
}

/// IPv4 addresses that containers in these blocks may have: each is an entry in each table of a
/// node that has the network and does not own the block.
pub(crate) fn addresses(network: &Network, blocks: &[Block]) -> Vec<Ipv4Addr> {
    blocks
        .iter()
        .flat_map(|block| network.addresses_of(*block))
        .filter_map(|addresses| addresses.v4)
        .collect()
}
