//! Moving a block: its owner hands it over to another node.
//!
//! Only the owner's files tell whether an address is held, so the owner's agent is asked. It
//! strikes the block out of its files. Then one transaction, which requires the block's record as
//! it was read, writes the new owner into it and deletes the request. If that fails the block is
//! still its own, and it adopts it again. The new owner finds a block of its own in the store that
//! its files lack, and adopts it.

use std::time::Duration;

use log::{debug, info};
use weft_cluster::cluster::unchanged;
use weft_cluster::view::NetworkMoves;
use weft_cluster::{Cluster, ClusterError, Stored};
use weft_ledger::{Ledger, Reservation};
use weft_model::block::{BlockRecord, MoveRecord};
use weft_model::{Block, Network, NetworkId, NetworkName, NodeName, NodeRecord};
use weft_store::{Expected, Op, Revision, StoreError, TxnOutcome, keys, typed};

use crate::{AllocatorError, ownership};

/// Limit for the owner's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two reads of a request in a store whose waits return at once.
const POLL: Duration = Duration::from_millis(5);

/// Reasons for which a block was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The cluster store failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The network is not cut into such a block.
    #[error("network {network} has no block {block}; `weftctl block list` shows those with owners")]
    NoSuchBlock {
        /// The block.
        block: Block,
        /// The network.
        network: NetworkName,
    },
    /// The block has no owner.
    #[error(
        "block {block} of network {network} has no owner, so there is nothing to move: a node \
         claims it when it needs an address of it"
    )]
    Unowned {
        /// The block.
        block: Block,
        /// The network.
        network: NetworkName,
    },
    /// The node cannot have the block.
    #[error("block {block} of network {network} cannot go to node {to}: {reason}")]
    Unfit {
        /// The block.
        block: Block,
        /// The network.
        network: NetworkName,
        /// The node.
        to: NodeName,
        /// The reason and what to do, in words.
        reason: String,
    },
    /// The owner refuses, or the block went elsewhere.
    #[error("block {block} of network {network} stays with node {owner}: {reason}")]
    Refused {
        /// The block.
        block: Block,
        /// The network.
        network: NetworkName,
        /// The owner.
        owner: NodeName,
        /// The reason and what to do, in words.
        reason: String,
    },
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Cluster(error.into())
    }
}

/// Asks the owner of a block to hand it over to node `to`, and waits until it has. Returns the node
/// that had it. No address of the block may be held, lent or kept.
pub async fn request(
    cluster: &Cluster,
    network: &Network,
    block: &Block,
    to: &NodeName,
) -> Result<NodeName, MoveError> {
    let (block, name) = (*block, network.name());
    if !network.pool(block.pool()).is_some_and(|pool| block.belongs_to(pool)) {
        return Err(MoveError::NoSuchBlock { block, network: name.clone() });
    }
    let Some(stored) = cluster.block_record(&network.id(), &block).await? else {
        return Err(MoveError::Unowned { block, network: name.clone() });
    };
    let owner = stored.record.node;
    let unfit = |reason| {
        let (network, to) = (name.clone(), to.clone());
        MoveError::Unfit { block, network, to, reason }
    };
    let refused = |reason| {
        let (network, owner) = (name.clone(), owner.clone());
        MoveError::Refused { block, network, owner, reason }
    };
    if owner == *to {
        return Err(unfit("it is that node's already".into()));
    }
    let members = cluster.members().await?;
    match members.get(to) {
        None => return Err(unfit("there is no such node; see `weftctl node list`".into())),
        Some(member) => {
            may_own(&member.record, to).map_err(unfit)?;
            if !member.alive {
                return Err(unfit("weftd does not run there; start it first".into()));
            }
        }
    }
    if !members.get(&owner).is_some_and(|member| member.alive) {
        return Err(refused(format!(
            "weftd does not run there; start it, or, if the node is gone for good, run `weftctl \
             node remove {owner}`"
        )));
    }
    let key = keys::move_request(&owner, &network.id(), &block);
    let record = MoveRecord { owner: owner.clone(), to: to.clone(), refused: None };
    // A request that is there already was left by a call that was cut short.
    let left = cluster.store().get(&key).await?.entry;
    let expected = left.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
    if !cluster.store().compare_and_set(&key, expected, typed::encode(&record)?).await? {
        return Err(refused("another call is moving it at this moment".into()));
    }
    if let Some(reason) = answer(cluster, &key).await? {
        return Err(refused(reason));
    }
    match cluster.block_record(&network.id(), &block).await? {
        Some(stored) if stored.record.node == *to => Ok(owner),
        Some(stored) => {
            Err(refused(format!("it went to node {} at the same time", stored.record.node)))
        }
        None => Err(MoveError::Unowned { block, network: name.clone() }),
    }
}

/// Waits until the request at `key` is gone, and returns why it was refused, if it was. It is
/// withdrawn if no answer comes.
async fn answer(cluster: &Cluster, key: &str) -> Result<Option<String>, MoveError> {
    let store = cluster.store();
    let start = cluster.environment().now();
    loop {
        let lookup = store.get(key).await?;
        let Some(entry) = &lookup.entry else { return Ok(None) };
        let waited = cluster.environment().now().saturating_sub(start);
        let withdrawal = [Op::delete_if(key, entry.revision)];
        if let Some(reason) = typed::decode::<MoveRecord>(entry)?.refused {
            store.transact(&withdrawal).await?;
            return Ok(Some(reason));
        }
        if waited >= ANSWER_TIMEOUT {
            if store.transact(&withdrawal).await? == TxnOutcome::Committed {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Ok(Some(format!(
                    "its weftd did not answer within {seconds} s; it may be too old to move \
                     blocks, or have no files of the network"
                )));
            }
            continue;
        }
        let left = ANSWER_TIMEOUT.saturating_sub(waited);
        let next = store.next_lookup(key, &lookup.cursor, left).await?;
        if next.cursor == lookup.cursor {
            cluster.environment().sleep(POLL).await;
        }
    }
}

/// Refuses a node that must not own another block, with the reason.
fn may_own(record: &NodeRecord, node: &NodeName) -> Result<(), String> {
    if record.removing {
        return Err("it is being removed from the cluster".into());
    }
    if record.drained {
        return Err(format!("it is drained; run `weftctl node undrain {node}` first"));
    }
    Ok(())
}

/// Answers the requests to hand blocks over that are addressed to this node.
pub(crate) async fn answer_all(
    cluster: &Cluster,
    ledger: &Ledger,
    moves: &NetworkMoves,
) -> Result<(), AllocatorError> {
    for (block, requested) in moves {
        if requested.record.owner != *cluster.node() || requested.record.refused.is_some() {
            continue;
        }
        if let Some(reason) = hand_over(cluster, ledger, block, requested).await? {
            let name = ledger.network().name();
            let refused = MoveRecord { refused: Some(reason), ..requested.record.clone() };
            let key = keys::move_request(cluster.node(), &ledger.network().id(), block);
            let expected = Expected::Revision(requested.revision);
            // The request may be gone: what is watched comes late.
            if cluster.store().compare_and_set(&key, expected, typed::encode(&refused)?).await? {
                let reason = refused.refused.unwrap_or_default();
                info!("network {name}: block {block} is not handed over: {reason}");
            }
        }
    }
    Ok(())
}

/// Makes the block the other node's; returns the reason if that must not be.
async fn hand_over(
    cluster: &Cluster,
    ledger: &Ledger,
    block: &Block,
    requested: &Stored<MoveRecord>,
) -> Result<Option<String>, AllocatorError> {
    let name = ledger.network().name();
    let to = &requested.record.to;
    let _lock = ownership::lock_claims(cluster, ledger).await?;
    let owned = cluster.block_record(&ledger.network().id(), block).await?;
    let Some(owned) = owned.filter(|owned| owned.record.node == *cluster.node()) else {
        return Ok(Some("it is not the owner any more".into()));
    };
    let member = keys::node(to);
    let Some(entry) = cluster.store().get(&member).await?.entry else {
        return Ok(Some(format!("there is no node {to}")));
    };
    if let Err(reason) = may_own(&typed::decode(&entry)?, to) {
        return Ok(Some(format!("node {to} cannot have it: {reason}")));
    }
    if !ledger.owns(block) {
        return Ok(Some("its files do not have the block yet; retry".into()));
    }
    if !ledger.remove_idle_block(block)? {
        return Ok(Some(held(block, &ledger.reservations()?)));
    }
    let moved =
        BlockRecord { node: to.clone(), generation: owned.record.generation.saturating_add(1) };
    let ops = vec![
        unchanged(member, entry.revision),
        Op::put(
            keys::owned(to, &ledger.network().id()),
            typed::encode(&cluster.environment().random())?,
        ),
        Op::update(
            keys::block(&ledger.network().id(), block),
            owned.revision,
            typed::encode(&moved)?,
        ),
        Op::delete_if(
            keys::move_request(cluster.node(), &ledger.network().id(), block),
            requested.revision,
        ),
    ];
    match cluster.store().transact(&cluster.with_revisions(ops)).await? {
        TxnOutcome::Committed => info!("network {name}: block {block} is handed over to node {to}"),
        // It is adopted again in this round, unless it is another node's.
        TxnOutcome::Conflict { reason, .. } => {
            debug!("network {name}: block {block} is not handed over: {reason}");
        }
    }
    Ok(None)
}

/// The holders of a block's addresses, in words.
fn held(block: &Block, reservations: &[Reservation]) -> String {
    let mut of_block = reservations.iter().filter(|held| {
        held.pool == block.pool() && block.contains(held.host) && held.loan.is_none()
    });
    let Some(first) = of_block.next() else {
        return "an address of it was taken just now; retry".into();
    };
    let more = match of_block.count() {
        0 => String::new(),
        1 => ", and 1 more address".into(),
        more => format!(", and {more} more addresses"),
    };
    format!(
        "{} is held by {}{more}; a block moves when no address of it is held",
        first.shown(),
        first.holder
    )
}

/// Deletes a refusal that the caller did not fetch.
pub(crate) async fn forget(
    cluster: &Cluster,
    network: &NetworkId,
    block: &Block,
    revision: Revision,
) -> Result<(), AllocatorError> {
    let key = keys::move_request(cluster.node(), network, block);
    cluster.store().transact(&[Op::delete_if(key, revision)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_one_holder_of_a_block_and_counts_the_others() {
        let reservation = |container: &str, host: u32| -> Reservation {
            serde_json::from_value(serde_json::json!({
                "holder": {"attachment": {"containerId": container, "ifname": "eth0"}},
                "pool": 0, "host": host, "addresses": [format!("10.9.0.{host}")], "created": 1,
            }))
            .unwrap()
        };
        let all = [reservation("c1", 3), reservation("c2", 17), reservation("c3", 18)];
        let text = |block: &str| held(&block.parse().unwrap(), &all);
        assert!(text("0-0-4").starts_with("10.9.0.3 is held by c1/eth0; "), "{}", text("0-0-4"));
        assert!(text("0-16-4").starts_with("10.9.0.17 is held by c2/eth0, and 1 more address; "));
        assert!(text("0-32-4").contains("just now"));
    }
}
