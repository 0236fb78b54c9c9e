//! Draining: what the agent of a drained node gives back beside idle blocks.

use std::path::Path;

use log::{debug, info};
use weft_cluster::Cluster;
use weft_ledger::Ledger;
use weft_ledger::layout::NetworkDir;
use weft_model::NetworkId;
use weft_store::{Op, TxnOutcome, keys};

use crate::AllocatorError;

/// Returns whether this node could leave the network: no container of it has an address, and
/// nothing borrowed is left to give back. Addresses that it lends or keeps for identities are in
/// the cluster store, and the next owner of their block finds them there.
pub fn is_unused(ledger: &Ledger) -> Result<bool, AllocatorError> {
    let reservations = ledger.reservations()?;
    let network = ledger.network().name();
    let is_container = |reservation: &weft_ledger::Reservation| {
        reservation.holder.attachment(network).is_some() || reservation.loan.is_some()
    };
    Ok(!reservations.iter().any(is_container)
        && ledger.returns()?.is_empty()
        && ledger.loans()?.is_empty()
        && weft_files::names_in(&ledger.dir().borrowings())?.is_empty()
        && !ledger.has_losses()?)
}

/// Gives back the blocks that this node owns of a network that it has no files of: from before a
/// reboot, or from before it left the network. Returns whether it has none left, or has files.
///
/// A process that brings the network back meanwhile creates its directory first and then adopts a
/// block, which is a write. So either the directory is seen here, or the deletion fails.
pub async fn give_back_unknown(
    cluster: &Cluster,
    data_dir: &Path,
    network: &NetworkId,
) -> Result<bool, AllocatorError> {
    let name = &network.name;
    let mut own = cluster.block_records(network).await?;
    own.retain(|_, stored| stored.record.node == *cluster.node());
    let mut all = true;
    for (block, stored) in own {
        if NetworkDir::new(data_dir, name).root().exists() {
            return Ok(true);
        }
        let op = Op::delete_if(keys::block(network, &block), stored.revision);
        match cluster.store().transact(&cluster.with_revisions(vec![op])).await? {
            TxnOutcome::Committed => {
                info!("network {name}: block {block} is given back: the node is drained");
            }
            TxnOutcome::Conflict { reason, .. } => {
                debug!("network {name}: block {block} is not given back: {reason}");
                all = false;
            }
        }
    }
    Ok(all)
}
