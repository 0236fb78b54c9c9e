//! Takes back what an ADD that failed has reserved for an identity.
//!
//! A DEL keeps the address of an identity for when it comes back. After an ADD that failed there
//! is nothing to come back to, unless the identity had an address before: attempts with ever new
//! identities would fill the network for as long as addresses are kept.

use std::path::Path;

use log::debug;
use weft_cluster::{Cluster, networks};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Network, NetworkName, Sticky, StickyRecord};
use weft_store::{Op, keys, typed};

use crate::release::{Reason, free, release};
use crate::{AllocatorError, identities};

/// Returns whether an ADD of `holder` is the first that the cluster sees of the identity: neither
/// this node's files nor the store have an address of it. False if that cannot be told.
pub async fn is_new(
    cluster: &Cluster,
    data_dir: &Path,
    network: &NetworkName,
    holder: &Holder,
    sticky: &Sticky,
) -> bool {
    match is_known(cluster, data_dir, network, holder, sticky).await {
        Ok(known) => !known,
        Err(error) => {
            debug!("network {network}: {} may be known: {error}", sticky.identity);
            false
        }
    }
}

async fn is_known(
    cluster: &Cluster,
    data_dir: &Path,
    network: &NetworkName,
    holder: &Holder,
    sticky: &Sticky,
) -> Result<bool, AllocatorError> {
    let Some(network) = networks::cached(data_dir, network)? else { return Ok(true) };
    let ledger = Ledger::open(data_dir, network)?;
    if ledger.reservation(holder)?.is_some() || ledger.kept(sticky)?.is_some() {
        return Ok(true);
    }
    let key = keys::identity(&ledger.network().id(), sticky.id());
    Ok(cluster.store().get(&key).await?.entry.is_some())
}

/// Frees what `holder` has, and forgets its identity, which was [new](is_new) before. The store is
/// told first: an address whose keys cannot be deleted now is kept, until its time is over.
pub async fn undo(
    cluster: &Cluster,
    data_dir: &Path,
    network: &NetworkName,
    holder: &Holder,
    sticky: &Sticky,
) -> Result<(), AllocatorError> {
    let Some(held) = release(data_dir, network, holder, Reason::Unneeded)? else { return Ok(()) };
    let Some(network) = networks::cached(data_dir, network)? else { return Ok(()) };
    forget(cluster, &network, sticky, &held).await?;
    let ledger = Ledger::open(data_dir, network)?;
    let kept = ledger.kept(sticky)?;
    let is_held = |kept: &Reservation| (kept.pool, kept.host) == (held.pool, held.host);
    if let Some(kept) = kept.filter(is_held) {
        free(&ledger, &kept, Reason::Unneeded)?;
    }
    Ok(())
}

/// Deletes the identity's keys, if they are of the address that was `held`.
async fn forget(
    cluster: &Cluster,
    network: &Network,
    sticky: &Sticky,
    held: &Reservation,
) -> Result<(), AllocatorError> {
    let key = keys::identity(&network.id(), sticky.id());
    let Some(entry) = cluster.store().get(&key).await?.entry else { return Ok(()) };
    let record: StickyRecord = typed::decode(&entry)?;
    if !record.sticky.is_same(sticky) || (record.pool, record.host) != (held.pool, held.host) {
        return Ok(());
    }
    let mut ops = vec![Op::delete_if(key, entry.revision)];
    let of_block = identities::block_key(network, sticky.id(), held.pool, held.host);
    ops.extend(of_block.map(Op::delete));
    // If another node was faster, the identity is in use there.
    cluster.store().transact(&ops).await?;
    Ok(())
}
