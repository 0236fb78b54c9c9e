//! The end of a simulation: all trouble is over, and nothing may be lost.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use weft_ledger::Holder;
use weft_model::Block;
use weft_store::keys;

use crate::run::Simulation;

impl Simulation {
    /// Ends all trouble, deletes all containers, and looks for what is lost.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.calm = true;
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            (node.up, node.connected) = (true, true);
            if node.agent.is_none() {
                self.start_agent(number)?;
            }
        }
        let mut quiet: usize = 0;
        for _ in 0..self.nodes.len() * 4000 {
            self.step()?;
            let emptied = self.nodes.iter().all(|node| node.containers.is_empty());
            quiet = if emptied && self.leftovers().is_none() { quiet + 1 } else { 0 };
            // Only now and then: accounting looks at all files of all nodes.
            if quiet % (50 * self.nodes.len()) == 1 && self.account().is_ok() {
                return Ok(());
            }
        }
        let held: usize = self.nodes.iter().map(|node| node.containers.len()).sum();
        self.account().with_context(|| format!("{held} containers, {:?}", self.leftovers()))
    }

    /// A key that should be gone when all is quiet.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let shared = self.world.lock();
        let prefixes =
            [keys::endpoints_prefix(&self.network.id()), keys::requests_prefix().to_owned()];
        prefixes.iter().find_map(|prefix| shared.server.keys(prefix).first().cloned())
    }

    /// No address is lost: each is free in a ledger, or in a block without an owner.
    pub(crate) fn account(&self) -> Result<()> {
        let shared = self.world.lock();
        let owned = shared.server.keys(&keys::blocks_prefix(&self.network.id()));
        drop(shared);
        let mut stood = std::collections::BTreeSet::new();
        for node in &self.nodes {
            if !node.data_dir.exists() {
                continue;
            }
            let ledger = node.ledger(&self.network)?;
            let mut kept: BTreeMap<Block, u64> = BTreeMap::new();
            for reservation in ledger.reservations()? {
                if !matches!(reservation.holder, Holder::Kept { .. }) {
                    bail!("node {}: {reservation:?} is left", node.number);
                }
                let block = ledger.network().block_at(reservation.pool, reservation.host);
                let block = block.context("a pool")?;
                *kept.entry(block).or_default() += 1;
            }
            for (block, counts) in ledger.usage()? {
                stood.insert(keys::block(&self.network.id(), &block));
                let assignable = self.assignable(&block);
                let kept = kept.get(&block).copied().unwrap_or(0);
                if u64::from(counts.free) + kept != assignable {
                    bail!("block {block}: {} of {assignable} addresses are free", counts.free);
                }
            }
        }
        if stood.len() != owned.len() {
            let unknown: Vec<&String> = owned.iter().filter(|key| !stood.contains(*key)).collect();
            bail!("{} blocks have owners, but {unknown:?} stand in no ledger", owned.len());
        }
        Ok(())
    }

    pub(crate) fn assignable(&self, block: &Block) -> u64 {
        let pool = self.network.pool(block.pool());
        pool.map_or(0, |pool| block.hosts().filter(|host| pool.is_assignable(*host)).count() as u64)
    }
}
