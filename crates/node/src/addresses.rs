//! An address for a holder.
//!
//! While an owned block has room this is a matter of the node's own files. When it has not, one
//! process of the node claims a block and the others wait for it: a burst of containers on a fresh
//! node takes one block, not one each.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use log::{debug, info};
use weft_blocks::claim::{Action, Claim, Claimed, Event, Target};
use weft_blocks::layout::NetworkDir;
use weft_blocks::ledger::{Outcome, Want};
use weft_blocks::{Holder, Ledger, Reservation, Sandbox};
use weft_model::block::BlockRecord;
use weft_model::{Block, NetworkName};
use weft_store::{Op, TxnOutcome, keys, typed};

use crate::networks::{cache, unchanged};
use crate::{Cluster, NodeError, lock};

/// How long to wait for another process of this node that is claiming.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);

/// Gives `holder` an address of the ledger's network, claiming a block if none has room.
pub async fn reserve(
    data_dir: &Path,
    cluster: &Cluster,
    mut ledger: Ledger,
    holder: &Holder,
    want: Want,
    sandbox: Option<&Sandbox>,
) -> Result<Reservation, NodeError> {
    let name = ledger.network().name().clone();
    if let Ok(reservation) = attempt(&ledger, holder, want, sandbox)? {
        return Ok(reservation);
    }
    let _claiming = lock_claims(data_dir, cluster, &name).await?;
    // A claim may bring only what another process takes at once, so this can go round.
    loop {
        let target = match attempt(&ledger, holder, want, sandbox)? {
            Ok(reservation) => return Ok(reservation),
            Err(target) => target,
        };
        let (renewed, claimed) = claim(data_dir, cluster, ledger, target).await?;
        ledger = renewed;
        match claimed {
            Claimed::Own(blocks) => {
                let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
                info!("network {name}: own blocks {} now", blocks.join(", "));
            }
            Claimed::Exhausted { blocks, nodes } => {
                let node = cluster.node().clone();
                return Err(NodeError::Exhausted { network: name, node, blocks, nodes });
            }
            Claimed::OwnedBy(owner) => {
                let address = shown(&ledger, want);
                return Err(NodeError::AddressElsewhere { address, network: name, owner });
            }
            Claimed::Contended => return Err(NodeError::Contended { network: name }),
        }
    }
}

/// Asks the ledger; what is missing for a yes comes back as what to claim.
fn attempt(
    ledger: &Ledger,
    holder: &Holder,
    want: Want,
    sandbox: Option<&Sandbox>,
) -> Result<Result<Reservation, Target>, NodeError> {
    let network = || ledger.network().name().clone();
    match ledger.reserve(holder, want, sandbox)? {
        Outcome::Held(reservation) => Ok(Ok(reservation)),
        Outcome::NoRoom => Ok(Err(Target::AnyBlock)),
        Outcome::NotOwned(block) => Ok(Err(Target::Exactly(block))),
        Outcome::Taken(holder) => {
            let address = shown(ledger, want);
            Err(NodeError::AddressTaken { address, network: network(), holder })
        }
        Outcome::Withheld => {
            Err(NodeError::AddressWithheld { address: shown(ledger, want), network: network() })
        }
    }
}

/// The wanted address in words.
fn shown(ledger: &Ledger, want: Want) -> String {
    match want {
        Want::Any => "(any)".into(),
        Want::Exactly(pool, host) => ledger
            .network()
            .addresses(pool, host)
            .map_or_else(|| format!("number {host} of pool {pool}"), |a| a.to_string()),
    }
}

/// Waits for the right to claim. It is this node's processes that queue here, not the cluster's.
async fn lock_claims(
    data_dir: &Path,
    cluster: &Cluster,
    network: &NetworkName,
) -> Result<File, NodeError> {
    let path = NetworkDir::new(data_dir, network).claim_lock();
    lock::wait(&path, CLAIM_PATIENCE).await?.ok_or_else(|| NodeError::Busy {
        work: "claiming a block of",
        network: network.clone(),
        waited: CLAIM_PATIENCE,
        store: cluster.store().describe(),
    })
}

/// Drives a claim with the cluster store, and enters what it brings into the ledger. The definition
/// of the network is read anew on the way, so the ledger that comes back may be of a newer one.
pub async fn claim(
    data_dir: &Path,
    cluster: &Cluster,
    ledger: Ledger,
    target: Target,
) -> Result<(Ledger, Claimed), NodeError> {
    let name = ledger.network().name().clone();
    let Some((network, network_revision)) = cluster.network(&name).await? else {
        let store = cluster.store().describe();
        return Err(NodeError::NoSuchNetwork { network: name, store });
    };
    let ledger = if &network == ledger.network() {
        ledger
    } else {
        cache(data_dir, &network)?;
        Ledger::open(data_dir, network.clone())?
    };
    let mut node_revision = cluster.register(None).await?;
    let (mut claim, mut action) = Claim::new(&network, cluster.node(), target, ledger.blocks()?);
    let record = typed::encode(&BlockRecord { node: cluster.node().clone() })?;
    loop {
        let event = match action {
            Action::List => Event::Listed(cluster.blocks(&name).await?),
            Action::Create(block) => {
                // The claim holds only while the network exists and the name is this machine's.
                let ops = [
                    unchanged(keys::network(&name), network_revision),
                    unchanged(keys::node(cluster.node()), node_revision),
                    Op::create(keys::block(&name, &block), record.clone()),
                ];
                match cluster.store().transact(&ops).await? {
                    TxnOutcome::Committed => Event::Created(true),
                    TxnOutcome::Conflict { op: 1, .. } => {
                        debug!("the record of node {} changed during a claim", cluster.node());
                        node_revision = cluster.register(None).await?;
                        continue;
                    }
                    TxnOutcome::Conflict { op: 0, .. } => {
                        return Err(NodeError::Contended { network: name });
                    }
                    TxnOutcome::Conflict { .. } => Event::Created(false),
                }
            }
            Action::Done(claimed) => {
                if let Claimed::Own(blocks) = &claimed {
                    enter(&ledger, blocks)?;
                }
                return Ok((ledger, claimed));
            }
        };
        action = claim.next(event);
    }
}

fn enter(ledger: &Ledger, blocks: &[Block]) -> Result<(), NodeError> {
    for block in blocks {
        ledger.add_block(block)?;
    }
    Ok(())
}
