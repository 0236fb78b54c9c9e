//! Takes back what an ADD that failed has reserved for an identity.
//!
//! A DEL keeps the address of an identity for when it comes back. After an ADD that failed there
//! is nothing to come back to, unless the identity had an address before: attempts with ever new
//! identities would fill the network for as long as addresses are kept.

use std::path::Path;

use log::debug;
use weft_cluster::{Cluster, networks};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{NetworkName, Sticky};
use weft_store::keys;

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
    identities::forget(cluster, &network, sticky, &held).await?;
    let ledger = Ledger::open(data_dir, network)?;
    let kept = ledger.kept(sticky)?;
    let is_held = |kept: &Reservation| (kept.pool, kept.host) == (held.pool, held.host);
    if let Some(kept) = kept.filter(is_held) {
        free(&ledger, &kept, Reason::Unneeded)?;
    }
    Ok(())
}
