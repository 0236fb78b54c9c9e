//! The block manager of a network on this node: the agent's work on blocks and loans.
//!
//! Each round compares the store's records with the ledger and makes them agree. A round may be cut
//! short at any point, and the next one starts from the beginning: all that is remembered between
//! rounds is since when blocks have been idle and requests answered.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use log::{info, warn};
use weft_cluster::view::{NetworkMoves, NetworkRequests};
use weft_cluster::{Cluster, NetworkView, Stored, networks};
use weft_ledger::Ledger;
use weft_ledger::ledger::Counts;
use weft_model::block::MoveRecord;
use weft_model::{Block, LoanId, Network, NetworkId};
use weft_store::{Op, keys};

use crate::claim::{Claimed, Target, count_blocks};
use crate::{AllocatorError, identities, lending, moving, ownership, returns};

/// Time for which an answered request stays in the store for a borrower that has not read the
/// answer.
const KEEP_ANSWERED: Duration = Duration::from_secs(30);

/// Times at which blocks come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// For how long none of a block's addresses must have been held before it is given back.
    pub release_after: Duration,
}

/// Manages one network's blocks and loans.
pub struct BlockManager {
    cluster: Cluster,
    data_dir: PathBuf,
    network: NetworkId,
    policy: Policy,
    idle_since: BTreeMap<Block, Duration>,
    /// Since when requests to this node stand answered.
    answered_since: BTreeMap<LoanId, Duration>,
    /// True if addresses are kept for identities.
    has_kept: bool,
    /// True if an idle block stands beside others.
    has_spare: bool,
    /// True if this node is to have no addresses but those in use.
    drained: bool,
    /// Requests to hand blocks over, and since when those stand that were refused.
    moves: NetworkMoves,
    refused_since: BTreeMap<Block, Duration>,
}

impl BlockManager {
    /// The block manager of `network` on the node with this data directory.
    pub fn new(cluster: Cluster, data_dir: PathBuf, network: NetworkId, policy: Policy) -> Self {
        Self {
            cluster,
            data_dir,
            network,
            policy,
            idle_since: BTreeMap::new(),
            answered_since: BTreeMap::new(),
            has_kept: false,
            has_spare: false,
            drained: false,
            moves: NetworkMoves::new(),
            refused_since: BTreeMap::new(),
        }
    }

    /// Sets whether the node is drained: then the next rounds claim nothing ahead, and give back
    /// each block that is idle at once, the last one too.
    pub fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
    }

    /// Sets the requests to this node to hand blocks of the network over, for the next rounds.
    pub fn set_moves(&mut self, moves: NetworkMoves) {
        self.moves = moves;
    }

    /// Returns whether the last round left something that is due after some time: idle blocks, kept
    /// addresses, answered requests.
    pub fn has_deadlines(&self) -> bool {
        self.has_kept
            || !self.answered_since.is_empty()
            || !self.refused_since.is_empty()
            || self.has_spare
    }

    /// Does what `view` and the `requests` to this node make necessary. The first failure ends the
    /// round; what follows it is done in a later one.
    pub async fn round(
        &mut self,
        view: &NetworkView,
        requests: &NetworkRequests,
    ) -> Result<(), AllocatorError> {
        let cached = networks::cached(&self.data_dir, &self.network.name)?;
        let Some(network) = cached.filter(|network| network.id() == self.network) else {
            return Ok(());
        };
        let ledger = Ledger::open(&self.data_dir, network)?;
        self.verify(&ledger, view).await?;
        lending::answer(&self.cluster, &ledger, requests).await?;
        self.forget_answered(requests).await?;
        lending::reclaim(&self.cluster, &ledger, view, requests).await?;
        returns::tidy(&self.cluster, &ledger, view).await?;
        identities::expire(&self.cluster, &ledger).await?;
        self.has_kept = ledger.has_unused()?;
        moving::answer_all(&self.cluster, &ledger, &self.moves).await?;
        self.forget_refused().await?;
        self.adopt(&ledger, view).await?;
        self.claim_ahead(&ledger, view).await?;
        self.release_idle(&ledger).await?;
        self.forget_losses(&ledger).await
    }

    /// Blocks that the ledger has and the store gives to others.
    async fn verify(&self, ledger: &Ledger, view: &NetworkView) -> Result<(), AllocatorError> {
        let own = self.cluster.node();
        if ledger.blocks()?.iter().all(|block| view.blocks.get(block) == Some(own)) {
            return Ok(());
        }
        let lock = ownership::lock_claims(&self.cluster, ledger).await?;
        ownership::verify(&self.cluster, self.reopen(ledger)?, &lock).await
    }

    /// Deletes requests that were answered long ago: their borrowers rebooted, and do not know of
    /// them. What was granted is given back by the borrower's agent.
    async fn forget_answered(&mut self, requests: &NetworkRequests) -> Result<(), AllocatorError> {
        let now = self.cluster.environment().now();
        self.answered_since.retain(|id, _| requests.contains_key(id));
        for (id, request) in requests {
            if request.record.answer.is_none() {
                continue;
            }
            let since = *self.answered_since.entry(*id).or_insert(now);
            if now.saturating_sub(since) >= KEEP_ANSWERED {
                let key = keys::request(self.cluster.node(), &self.network, *id);
                let op = Op::delete_if(key, request.revision);
                self.cluster.store().transact(&[op]).await?;
            }
        }
        Ok(())
    }

    /// Deletes refusals to hand blocks over that the caller, which was ended, did not fetch.
    async fn forget_refused(&mut self) -> Result<(), AllocatorError> {
        let now = self.cluster.environment().now();
        let refused = |stored: &Stored<MoveRecord>| stored.record.refused.is_some();
        self.refused_since.retain(|block, _| self.moves.get(block).is_some_and(refused));
        for (block, stored) in self.moves.iter().filter(|(_, stored)| refused(stored)) {
            let since = *self.refused_since.entry(*block).or_insert(now);
            if now.saturating_sub(since) >= KEEP_ANSWERED {
                moving::forget(&self.cluster, &self.network, block, stored.revision).await?;
            }
        }
        Ok(())
    }

    /// Blocks that the store gives to this node and the ledger lacks: from before a reboot, or of a
    /// process that was killed.
    async fn adopt(&self, ledger: &Ledger, view: &NetworkView) -> Result<(), AllocatorError> {
        let own = self.cluster.node();
        let unknown = view
            .blocks
            .iter()
            .filter(|(block, owner)| *owner == own && needs_entering(ledger, block));
        for (block, _) in unknown {
            let lock = ownership::lock_claims(&self.cluster, ledger).await?;
            // The view may be from before the block was given back.
            let record = self.cluster.block_record(&self.network, block).await?;
            if record.is_none_or(|stored| stored.record.node != *own)
                || !needs_entering(ledger, block)
            {
                continue;
            }
            let ledger = self.reopen(ledger)?;
            ownership::claim(&self.cluster, ledger, Target::Exactly(*block), &lock).await?;
            info!("network {}: block {block} was this node's already", self.network.name);
        }
        Ok(())
    }

    /// Claims a block before the own ones are full, unless blocks are scarce.
    async fn claim_ahead(&self, ledger: &Ledger, view: &NetworkView) -> Result<(), AllocatorError> {
        if self.drained
            || ledger.blocks()?.is_empty()
            || ledger.counts()?.free >= low_water(ledger.network())
        {
            return Ok(());
        }
        let unowned = count_blocks(ledger.network()).saturating_sub(view.blocks.len() as u64);
        let mut owners: Vec<_> = view.blocks.values().collect();
        owners.sort_unstable();
        owners.dedup();
        if unowned <= owners.len() as u64 {
            return Ok(());
        }
        let lock = ownership::lock_claims(&self.cluster, ledger).await?;
        let ledger = self.reopen(ledger)?;
        if let (_, Claimed::Own(block)) =
            ownership::claim(&self.cluster, ledger, Target::AnyBlock, &lock).await?
        {
            info!("network {}: block {block} is claimed ahead", self.network.name);
        }
        Ok(())
    }

    /// Gives back blocks that have been idle for long, but the last one, and never so many that
    /// others would be claimed ahead for them. A drained node gives back all that are idle.
    async fn release_idle(&mut self, ledger: &Ledger) -> Result<(), AllocatorError> {
        let now = self.cluster.environment().now();
        let usage = ledger.usage()?;
        let idle = |counts: &Counts| counts.reserved == 0;
        self.idle_since
            .retain(|block, _| usage.iter().any(|(b, counts)| b == block && idle(counts)));
        let may_go = self.drained || usage.len() > 1;
        self.has_spare = may_go && usage.iter().any(|(_, counts)| idle(counts));
        let mut kept = usage.len();
        let mut free: u32 = usage.iter().map(|(_, counts)| counts.free).sum();
        // The highest first: the cluster's addresses stay low and legible.
        for (block, counts) in usage.iter().rev().filter(|(_, counts)| idle(counts)) {
            let since = *self.idle_since.entry(*block).or_insert(now);
            let rest = free.saturating_sub(counts.free);
            let is_needed = now.saturating_sub(since) < self.policy.release_after
                || kept == 1
                || rest < low_water(ledger.network());
            if is_needed && !self.drained {
                continue;
            }
            let lock = ownership::lock_claims(&self.cluster, ledger).await?;
            if ownership::release(&self.cluster, ledger, block, &lock).await? {
                info!("network {}: idle block {block} is given back", self.network.name);
            } else {
                warn!("network {}: idle block {block} could not be given back", self.network.name);
            }
            self.idle_since.remove(block);
            kept -= 1;
            free = rest;
        }
        Ok(())
    }

    /// Forgets what was lost once no reservation is stranded by it.
    async fn forget_losses(&self, ledger: &Ledger) -> Result<(), AllocatorError> {
        if !ledger.has_losses()? {
            return Ok(());
        }
        let _lock = ownership::lock_claims(&self.cluster, ledger).await?;
        if ledger.stranded()?.is_empty() {
            ledger.forget_losses()?;
        }
        Ok(())
    }

    fn reopen(&self, ledger: &Ledger) -> Result<Ledger, AllocatorError> {
        Ok(Ledger::open(&self.data_dir, ledger.network().clone())?)
    }
}

/// Returns whether the ledger lacks the block or its addresses that live elsewhere: taking the
/// block again was cut short.
fn needs_entering(ledger: &Ledger, block: &Block) -> bool {
    !ledger.owns(block) || ledger.was_lost(block)
}

/// With fewer free addresses than this a node claims a block ahead: a quarter of a block.
pub fn low_water(network: &Network) -> u32 {
    let largest = network.pools().map(|(_, pool)| pool.block_bits().size()).max().unwrap_or(0);
    u32::try_from(largest / 4).unwrap_or(u32::MAX).max(1)
}
