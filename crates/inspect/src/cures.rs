//! Cures for differences in files and store. Devices are repaired by [`crate::check`].

use std::path::Path;

use weft_allocator::claim::Target;
use weft_allocator::release::{Reason, discard, free};
use weft_allocator::{AllocatorError, lending, ownership, returns};
use weft_cluster::{Cluster, networks};
use weft_ledger::Ledger;
use weft_ledger::ledger::Want;
use weft_model::Network;

use crate::difference::Fix;

/// Does what `fix` says about files and store; devices are the host's.
pub(crate) async fn apply(
    cluster: &Cluster,
    data_dir: &Path,
    network: &Network,
    fix: &Fix,
) -> Result<(), AllocatorError> {
    let network = match networks::cached(data_dir, network.name())? {
        Some(cached) => cached,
        None => {
            networks::cache(data_dir, network)?;
            network.clone()
        }
    };
    let ledger = Ledger::open(data_dir, network.clone())?;
    match fix {
        // The host's; and the definition, which is cached already.
        Fix::None | Fix::Repair | Fix::ReleaseUnwired(_) | Fix::Define => {}
        Fix::Adopt(block) => {
            let lock = ownership::lock_claims(cluster, &ledger).await?;
            // It may have been given back since, and is not to be claimed again.
            let record = cluster.block_record(&network.id(), block).await?;
            if record.is_some_and(|stored| stored.record.node == *cluster.node()) {
                ownership::claim(cluster, ledger, Target::Exactly(*block), &lock).await?;
            }
        }
        Fix::Verify => {
            let lock = ownership::lock_claims(cluster, &ledger).await?;
            ownership::verify(cluster, ledger, &lock).await?;
        }
        Fix::Release(reservation) => {
            free(&ledger, reservation, Reason::Operator)?;
        }
        Fix::Discard(holder) => {
            discard(&ledger, holder, Reason::Operator)?;
        }
        Fix::Tidy => {
            returns::tidy(cluster, &ledger, &cluster.network_view(&network.id()).await?).await?;
        }
        Fix::Reclaim => {
            let view = cluster.network_view(&network.id()).await?;
            let requests = cluster.requests(&network.id()).await?;
            lending::reclaim(cluster, &ledger, &view, &requests).await?;
        }
        Fix::SetAside(block, away) => {
            let want = Want::Exactly(block.pool(), away.host);
            match away.loan {
                // Does nothing to an address that a container has got meanwhile.
                Some(loan) => ledger.lend(want, &away.node, loan, None).map(drop)?,
                None if ledger.owns(block) => {
                    ledger.add_used_block(block, std::slice::from_ref(away), &[])?;
                }
                None => {}
            }
        }
        Fix::Reindex => ledger.drop_index()?,
    }
    Ok(())
}
