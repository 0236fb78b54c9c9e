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
        return Ok(kept.is_same(sticky));
    }
    let held = ledger.reservation(holder)?;
    Ok(held.and_then(|held| held.sticky).is_some_and(|of| of.is_same(sticky)))
}

/// The record under an identity's key in the cluster store.
#[derive(Debug)]
pub(crate) enum Known {
    /// There is none.
    Nothing,
    /// The address of this identity.
    Address(Entry, StickyRecord),
    /// Something that cannot be read.
    Unreadable(Entry),
    /// The address of another identity with the same id. It is never touched.
    Anothers,
}

/// The cluster's record of an identity.
pub(crate) async fn known(
    cluster: &Cluster,
    network: &NetworkId,
    sticky: &Sticky,
) -> Result<Known, AllocatorError> {
    let key = keys::identity(network, sticky.id());
    let Some(entry) = cluster.store().get(&key).await?.entry else { return Ok(Known::Nothing) };
    Ok(match typed::decode::<StickyRecord>(&entry) {
        Ok(record) if record.sticky.is_same(sticky) => Known::Address(entry, record),
        Ok(_) => Known::Anothers,
        Err(error) => {
            warn!("{error}; {} gets another address", sticky.identity);
            Known::Unreadable(entry)
        }
    })
}

/// Writes the address of an identity under both its keys, in place of the one that it had.
pub(crate) async fn remember(
    cluster: &Cluster,
    network: &Network,
    known: &Known,
    sticky: &Sticky,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    let (expected, before) = match known {
        Known::Nothing => (Expected::Absent, None),
        Known::Address(entry, record) => (Expected::Revision(entry.revision), Some(record)),
        Known::Unreadable(entry) => (Expected::Revision(entry.revision), None),
        Known::Anothers => return Ok(()),
    };
    let (pool, host) = (reservation.pool, reservation.host);
    let record = typed::encode(&StickyRecord { sticky: sticky.clone(), pool, host })?;
    let key = keys::identity(&network.id(), sticky.id());
    let mut ops = vec![Op::Write { key, expected, value: record.clone() }];
    let of_block = block_key(network, sticky.id(), pool, host);
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
pub(crate) fn block_key(
    network: &Network,
    id: StickyId,
    pool: PoolIndex,
    host: HostNumber,
) -> Option<String> {
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
            Ok(record) if is_of_key(&entry, &record) => kept.push((record.host, record.sticky)),
            Ok(record) => warn!(
                "{} in the cluster store is of {}, which has another id; the record is ignored",
                entry.key, record.sticky.identity
            ),
            Err(error) => warn!("{error}; the record is ignored"),
        }
    }
    Ok(kept)
}

/// Returns whether the record is of the identity that its key says.
fn is_of_key(entry: &Entry, record: &StickyRecord) -> bool {
    keys::sticky_of(&entry.key).is_some_and(|(_, _, id)| id == record.sticky.id())
}

/// Deletes the identity's keys, if they are of the address of `held`; says whether it did. If
/// another node is faster, the identity is in use there.
pub(crate) async fn forget(
    cluster: &Cluster,
    network: &Network,
    sticky: &Sticky,
    held: &Reservation,
) -> Result<bool, AllocatorError> {
    let key = keys::identity(&network.id(), sticky.id());
    let Some(entry) = cluster.store().get(&key).await?.entry else { return Ok(false) };
    let record: StickyRecord = typed::decode(&entry)?;
    if !record.sticky.is_same(sticky) || (record.pool, record.host) != (held.pool, held.host) {
        return Ok(false);
    }
    let mut ops = vec![Op::delete_if(key, entry.revision)];
    ops.extend(block_key(network, sticky.id(), held.pool, held.host).map(Op::delete));
    Ok(cluster.store().transact(&ops).await? == TxnOutcome::Committed)
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
    if let Holder::Kept { sticky, .. } = &reservation.holder
        && forget(cluster, network, sticky, reservation).await?
    {
        forgotten = Some(sticky);
    }
    if !release::free(ledger, reservation, release::Reason::Expired)?
        && let Some(sticky) = forgotten
    {
        // The identity came back for it in this moment.
        remember(cluster, network, &Known::Nothing, sticky, reservation).await?;
    }
    Ok(())
}
