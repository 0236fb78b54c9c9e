//! Blocks for this node: claimed, adopted, given back, and found to be lost.
//!
//! All of it happens under one lock between the processes of a node, which may be held while the
//! cluster store is asked. What the ledger says of a block changes before the store when a block
//! goes and after it when one comes, so the ledger never has a block that is not this node's.

use std::net::IpAddr;
use std::time::Duration;

use log::{debug, info, warn};
use weft_cluster::cluster::unchanged;
use weft_cluster::networks::cache;
use weft_cluster::{Cluster, ClusterError, Stored, environment};
use weft_files::FileLock;
use weft_ledger::Ledger;
use weft_ledger::ledger::Away;
use weft_model::block::BlockRecord;
use weft_model::{Block, Endpoint, HostNumber, LoanId, Network, NetworkId, NodeName, PoolIndex};
use weft_store::{Op, Revision, TxnOutcome, keys, typed};

use crate::claim::{Action, Claim, Claimed, Event, Target};
use crate::{AllocatorError, identities};

/// Limit for waiting for another process of this node that is claiming.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts when the network's definition changes during a claim.
const DEFINITION_TRIES: usize = 16;

/// The lock under which this node's processes change which blocks the node has in a network;
/// released when dropped. Unlike the ledger's lock it is held while the cluster store is asked.
#[derive(Debug)]
pub struct ClaimLock {
    _lock: FileLock,
}

/// Waits until no other process of this node is claiming.
pub async fn lock_claims(cluster: &Cluster, ledger: &Ledger) -> Result<ClaimLock, AllocatorError> {
    let path = ledger.dir().claim_lock();
    let lock = environment::wait_for_lock(cluster.environment(), &path, LOCK_TIMEOUT).await?;
    let lock = lock.ok_or_else(|| ClusterError::Busy {
        work: "claiming a block of",
        network: ledger.network().name().clone(),
        waited: LOCK_TIMEOUT,
        store: cluster.store().describe(),
    })?;
    Ok(ClaimLock { _lock: lock })
}

/// Drives a claim with the cluster store, and enters what it brings into the ledger. The definition
/// of the network is read again on the way, so the ledger that comes back may be of a newer one.
pub async fn claim(
    cluster: &Cluster,
    mut ledger: Ledger,
    target: Target,
    _lock: &ClaimLock,
) -> Result<(Ledger, Claimed), AllocatorError> {
    let name = ledger.network().name().clone();
    for _ in 0..DEFINITION_TRIES {
        let (network, revision) = cluster.current(ledger.network()).await?;
        if &network != ledger.network() {
            cache(ledger.data_dir(), &network)?;
            ledger = Ledger::open(ledger.data_dir(), network)?;
        }
        if let Some(claimed) = drive(cluster, &ledger, revision, target).await? {
            return Ok((ledger, claimed));
        }
    }
    Err(ClusterError::Contended { network: name }.into())
}

/// Drives a claim in the ledger's network as it is in the store at `network_revision`. Nothing
/// comes back if the network was extended or removed meanwhile.
async fn drive(
    cluster: &Cluster,
    ledger: &Ledger,
    network_revision: Revision,
    target: Target,
) -> Result<Option<Claimed>, AllocatorError> {
    let network = ledger.network();
    let id = network.id();
    let (network_key, node_key) = (keys::network(&id.name), keys::node(cluster.node()));
    let mut own = cluster.register(None).await?;
    // What the files have is this node's, and is claimed again if the store has lost it.
    let is_new = match target {
        Target::AnyBlock => true,
        Target::Exactly(block) => !ledger.owns(&block),
    };
    let (mut claim, mut action) = Claim::new(network, cluster.node(), target, ledger.blocks()?);
    if own.drained {
        // It may have a block to adopt, which no guess finds.
        action = Action::List;
    }
    let mut records = std::collections::BTreeMap::new();
    loop {
        let write = match action {
            Action::Create(_) if own.drained && is_new => return Err(drained(cluster, ledger)),
            Action::List => {
                records = match target {
                    Target::AnyBlock => cluster.block_records(&id).await?,
                    Target::Exactly(block) => cluster.block_records_at(&id, &block).await?,
                };
                let owners =
                    records.iter().map(|(block, stored)| (*block, stored.record.node.clone()));
                action = claim.next(Event::Listed(owners.collect()));
                continue;
            }
            Action::Create(block) => Op::create(
                keys::block(&id, &block),
                typed::encode(&BlockRecord { node: cluster.node().clone(), generation: 0 })?,
            ),
            Action::Adopt(block) => match records.get(&block) {
                Some(stored) => renewed(&id, &block, stored)?,
                None => {
                    action = claim.next(Event::Adopted(false));
                    continue;
                }
            },
            Action::Done(claimed) => {
                if let Claimed::Own(block) = &claimed {
                    enter(cluster, ledger, block).await?;
                } else if own.drained && is_new {
                    return Err(drained(cluster, ledger));
                }
                return Ok(Some(claimed));
            }
        };
        // The claim holds only while the network exists and the name is this machine's.
        let ops = cluster.with_revisions(vec![
            unchanged(network_key.clone(), network_revision),
            unchanged(node_key.clone(), own.revision),
            // After a reboot the node knows by this where to look for blocks of its own.
            Op::put(
                keys::owned(cluster.node(), &id),
                typed::encode(&cluster.environment().random())?,
            ),
            write,
        ]);
        let done = match cluster.store().transact(&ops).await? {
            TxnOutcome::Committed => true,
            TxnOutcome::Conflict { key, .. } if key == network_key => return Ok(None),
            TxnOutcome::Conflict { key, .. } if key == node_key => {
                debug!("the record of node {} changed during a claim", cluster.node());
                own = cluster.register(None).await?;
                continue;
            }
            TxnOutcome::Conflict { .. } => false,
        };
        action = claim.next(match action {
            Action::Adopt(_) => Event::Adopted(done),
            _ => Event::Created(done),
        });
    }
}

/// The error of a node that must not get new addresses.
pub(crate) fn drained(cluster: &Cluster, ledger: &Ledger) -> AllocatorError {
    let (node, network) = (cluster.node().clone(), ledger.network().name().clone());
    AllocatorError::Drained { node, network }
}

/// The write by which an owner decides something about its block: a decision that was made from the
/// same reading of the record fails from then on.
pub(crate) fn renewed(
    network: &NetworkId,
    block: &Block,
    stored: &Stored<BlockRecord>,
) -> Result<Op, AllocatorError> {
    let BlockRecord { node, generation } = stored.record.clone();
    let record = BlockRecord { node, generation: generation + 1 };
    Ok(Op::update(keys::block(network, block), stored.revision, typed::encode(&record)?))
}

/// The writes by which the addresses of a host number live on `node`: in each family one, together.
pub(crate) fn endpoints(
    network: &Network,
    (pool, host): (PoolIndex, HostNumber),
    node: &NodeName,
    lender: Option<&NodeName>,
    loan: Option<LoanId>,
) -> Result<Vec<Op>, AllocatorError> {
    let (Some(addresses), Some(block)) =
        (network.addresses(pool, host), network.block_at(pool, host))
    else {
        return Ok(vec![]);
    };
    let endpoint =
        Endpoint { node: node.clone(), mac: addresses.mac, lender: lender.cloned(), loan };
    let create = |address: IpAddr| -> Result<Op, AllocatorError> {
        let key = keys::endpoint(&network.id(), &block, address);
        Ok(Op::create(key, typed::encode(&endpoint)?))
    };
    addresses.iter().map(create).collect()
}

/// Enters a block that is this node's now. Addresses in it that live elsewhere, lent by an earlier
/// owner, are set aside: the endpoints are read after the block was won, and from then on there can
/// be new ones only by this node's hand.
async fn enter(cluster: &Cluster, ledger: &Ledger, block: &Block) -> Result<(), AllocatorError> {
    let network = ledger.network();
    let mut away = vec![];
    let mut used = ledger.was_lost(block);
    if !cluster.is_single_node() {
        for (address, stored) in cluster.endpoints_of_block(&network.id(), block).await? {
            let Some((_, host)) = network.locate(address) else { continue };
            used = true;
            let Endpoint { node, loan, .. } = stored.record;
            if node != *cluster.node() {
                away.push(Away { host, node, loan });
            }
        }
    }
    let kept = identities::of_block(cluster, &network.id(), block).await?;
    if used || !kept.is_empty() {
        ledger.add_used_block(block, &away, &kept)?;
    } else {
        ledger.add_block(block)?;
    }
    Ok(())
}

/// Gives back a block none of whose addresses is held; says whether it did.
pub async fn release(
    cluster: &Cluster,
    ledger: &Ledger,
    block: &Block,
    _lock: &ClaimLock,
) -> Result<bool, AllocatorError> {
    let name = ledger.network().name();
    let id = ledger.network().id();
    let Some(stored) = cluster.block_record(&id, block).await? else {
        return Ok(false);
    };
    if stored.record.node != *cluster.node() || !ledger.remove_idle_block(block)? {
        return Ok(false);
    }
    // From here on no node may use the block. If the answer is lost, or this process dies, the
    // block is found in the store and adopted, or given back then.
    let ops = vec![Op::delete_if(keys::block(&id, block), stored.revision)];
    match cluster.store().transact(&cluster.with_revisions(ops)).await? {
        TxnOutcome::Committed => Ok(true),
        TxnOutcome::Conflict { reason, .. } => {
            debug!("block {block} of network {name} was not given back: {reason}");
            Ok(false)
        }
    }
}

/// Compares the ledger's blocks with the store's. A node that was removed while it was cut off
/// takes its blocks again if they have no owner, and strikes them out if another node owns them.
pub async fn verify(
    cluster: &Cluster,
    mut ledger: Ledger,
    lock: &ClaimLock,
) -> Result<(), AllocatorError> {
    let name = ledger.network().name().clone();
    let owners = cluster.blocks(&ledger.network().id()).await?;
    let missing = |block: &Block| owners.get(block) != Some(cluster.node());
    for block in ledger.blocks()?.into_iter().filter(missing) {
        ledger.note_possible_loss(&block)?;
        let (reopened, claimed) = claim(cluster, ledger, Target::Exactly(block), lock).await?;
        ledger = reopened;
        match claimed {
            Claimed::Own(_) => {
                info!("network {name}: block {block} was unowned and is this node's again");
            }
            Claimed::OwnedBy(owner) => {
                warn!("network {name}: block {block} of this node belongs to node {owner} now");
                ledger.lose_block(&block)?;
            }
            Claimed::Exhausted { .. } | Claimed::Contended => {}
        }
    }
    Ok(())
}
