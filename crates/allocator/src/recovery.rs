//! Writing back what an emptied cluster store has lost and this node's ledger has.
//!
//! Everything is created only where it is absent: what another node wrote first stands, and a block
//! that another node owns already is found by [`crate::ownership::verify`].

use log::{debug, warn};
use weft_cluster::{Cluster, ClusterError};
use weft_ledger::{Holder, Ledger};
use weft_model::block::BlockRecord;
use weft_store::{Op, TxnOutcome, keys, typed};

use crate::identities::{self, Known};
use crate::{AllocatorError, ownership};

/// Writes back this network, its blocks of this node, the addresses lent and borrowed, and the
/// identities that keep addresses. A network that was removed, or of which the store has another of
/// the same name, stays as it is.
pub async fn write_back(cluster: &Cluster, ledger: &Ledger) -> Result<(), AllocatorError> {
    match cluster.current(ledger.network()).await {
        Ok(_) => {}
        Err(
            error @ (ClusterError::Removed { .. }
            | ClusterError::AnotherNetwork { .. }
            | ClusterError::VniTaken { .. }
            | ClusterError::Model(_)),
        ) => {
            warn!("network {}: {error}", ledger.network().name());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let _lock = ownership::lock_claims(cluster, ledger).await?;
    let id = ledger.network().id();
    for lent in ledger.lent()? {
        let Holder::Lent { node, loan, .. } = &lent.holder else { continue };
        let place = (lent.pool, lent.host);
        let lender = Some(cluster.node());
        create(cluster, ownership::endpoints(ledger.network(), place, node, lender, *loan)?)
            .await?;
    }
    for reservation in ledger.reservations()? {
        if let Some(loan) = &reservation.loan {
            let place = (reservation.pool, reservation.host);
            let (node, lender) = (cluster.node(), Some(&loan.lender));
            let ops = ownership::endpoints(ledger.network(), place, node, lender, Some(loan.id))?;
            create(cluster, ops).await?;
        }
        let kept = match &reservation.holder {
            Holder::Kept { sticky, .. } => Some(sticky),
            _ => reservation.sticky.as_ref(),
        };
        if let Some(sticky) = kept {
            let known = identities::known(cluster, &id, sticky).await?;
            if let Known::Nothing = known {
                identities::remember(cluster, ledger.network(), &known, sticky, &reservation)
                    .await?;
            }
        }
    }
    // The block last: while it has no owner in the store, nothing lent from it is taken back.
    for block in ledger.blocks()? {
        let record = BlockRecord { node: cluster.node().clone(), generation: 0 };
        let ops = vec![
            Op::create(keys::block(&id, &block), typed::encode(&record)?),
            Op::put(
                keys::owned(cluster.node(), &id),
                typed::encode(&cluster.environment().random())?,
            ),
        ];
        create(cluster, ops).await?;
    }
    Ok(())
}

async fn create(cluster: &Cluster, ops: Vec<Op>) -> Result<(), AllocatorError> {
    match cluster.store().transact(&cluster.with_revisions(ops)).await? {
        TxnOutcome::Committed => {}
        TxnOutcome::Conflict { reason, .. } => debug!("not written back: {reason}"),
    }
    Ok(())
}
