//! Addresses of identities: the keys under which the cluster remembers them, and their end.

use log::{debug, warn};
use weft_cluster::Cluster;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{
    Block, HostNumber, Network, NetworkId, PoolIndex, Sticky, StickyId, StickyRecord,
};
use weft_store::{Entry, Expected, Op, TxnOutcome, keys, typed};

use crate::{AllocatorError, release};

/// Returns whether the holder is, or is kept or lent for, the identity that asks.
pub(crate) fn is_itself(
    ledger: &Ledger,
    holder: &Holder,
    sticky: Option<&Sticky>,
) -> Result<bool, AllocatorError> {
    let Some(sticky) = sticky else { return Ok(false) };
    if let Holder::Kept { sticky: kept, .. } = holder {
        return Ok(kept.identity == sticky.identity);
    }
    let held = ledger.reservation(holder)?;
    Ok(held.and_then(|held| held.sticky).is_some_and(|of| of.identity == sticky.identity))
}

/// Writes the address of an identity under both its keys, in place of the one that it had.
pub(crate) async fn remember(
    cluster: &Cluster,
    network: &Network,
    known: Option<Entry>,
    sticky: &Sticky,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    let (pool, host) = (reservation.pool, reservation.host);
    let record = typed::encode(&StickyRecord { sticky: sticky.clone(), pool, host })?;
    let expected = known.as_ref().map_or(Expected::Absent, |e| Expected::Revision(e.revision));
    let key = keys::identity(&network.id(), sticky.id());
    let mut ops = vec![Op::Write { key, expected, value: record.clone() }];
    let of_block = block_key(network, sticky.id(), pool, host);
    let before = known.and_then(|entry| typed::decode::<StickyRecord>(&entry).ok());
    let before = before.and_then(|b| block_key(network, sticky.id(), b.pool, b.host));
    if before != of_block {
        ops.extend(before.map(Op::delete));
    }
    ops.extend(of_block.map(|key| Op::put(key, record)));
    if cluster.store().transact(&ops).await? != TxnOutcome::Committed {
        debug!("{} got an address elsewhere at the same time", sticky.identity);
    }
    Ok(())
}

/// Key of an identity's address below the block that holds it.
fn block_key(network: &Network, id: StickyId, pool: PoolIndex, host: HostNumber) -> Option<String> {
    Some(keys::sticky(&network.id(), &network.block_at(pool, host)?, id))
}

/// Addresses of a block that identities had last: they may come back for them.
pub(crate) async fn of_block(
    cluster: &Cluster,
    network: &NetworkId,
    block: &Block,
) -> Result<Vec<(HostNumber, Sticky)>, AllocatorError> {
    let mut kept = vec![];
    for entry in cluster.store().list(&keys::sticky_of_block(network, block)).await?.entries {
        match typed::decode::<StickyRecord>(&entry) {
            Ok(record) => kept.push((record.host, record.sticky)),
            Err(error) => warn!("{error}; the record is ignored"),
        }
    }
    Ok(kept)
}

/// Frees the addresses of this node whose time is over: of identities that have not come back,
/// which are deleted from the cluster store first, and of prepared containers that were not made.
/// An address whose keys cannot be deleted now is freed later; that does not stop the others.
pub async fn expire(cluster: &Cluster, ledger: &Ledger) -> Result<(), AllocatorError> {
    let mut failure = None;
    for reservation in ledger.expired()? {
        if let Err(error) = expire_one(cluster, ledger, &reservation).await {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn expire_one(
    cluster: &Cluster,
    ledger: &Ledger,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    let network = ledger.network();
    let mut forgotten = None;
    if let Holder::Kept { sticky, .. } = &reservation.holder {
        let key = keys::identity(&network.id(), sticky.id());
        let (pool, host) = (reservation.pool, reservation.host);
        if let Some(entry) = cluster.store().get(&key).await?.entry {
            let record: StickyRecord = typed::decode(&entry)?;
            if (record.pool, record.host) == (pool, host) {
                let mut ops = vec![Op::delete_if(key, entry.revision)];
                ops.extend(block_key(network, sticky.id(), pool, host).map(Op::delete));
                if cluster.store().transact(&ops).await? == TxnOutcome::Committed {
                    forgotten = Some(sticky);
                }
            }
        }
    }
    if !release::free(ledger, reservation, release::Reason::Expired)?
        && let Some(sticky) = forgotten
    {
        // The identity came back for it in this moment.
        remember(cluster, network, None, sticky, reservation).await?;
    }
    Ok(())
}
