//! Returns: borrowed addresses that go back to their lenders.
//!
//! The agent's work on the borrower's node. A release puts the loan into the ledger's `returns/`
//! without asking the cluster; a process that was killed leaves a request or endpoints. The agent
//! goes through both and deletes what no reservation needs.

use log::{debug, info};
use weft_cluster::{Cluster, NetworkView};
use weft_files as files;
use weft_ledger::Ledger;
use weft_model::LoanId;
use weft_store::{Op, TxnOutcome, keys};

use crate::AllocatorError;
use crate::borrowing::{Abandoned, abandoned, is_being_borrowed};

/// Gives back what was released here, and what processes that were killed have left: endpoints and
/// requests of this node that no reservation stands behind.
pub async fn tidy(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &NetworkView,
) -> Result<(), AllocatorError> {
    let network = ledger.network().id();
    for Abandoned { id, lender, lock } in abandoned(ledger)? {
        if let Some(lender) = lender {
            withdraw(cluster, &keys::request(&lender, &network, id)).await?;
        }
        // A grant that the view does not show yet is given back below, when it does.
        files::remove(lock.path())?;
    }
    let own = view.endpoints.values().filter(|stored| stored.record.node == *cluster.node());
    let mut loans: Vec<LoanId> = own.filter_map(|stored| stored.record.loan).collect();
    loans.sort_unstable();
    loans.dedup();
    for id in loans {
        if is_being_borrowed(ledger, id) || ledger.borrowed(id)?.is_some() {
            continue;
        }
        give_back(cluster, ledger, view, id).await?;
    }
    for id in ledger.returns()? {
        if !has_endpoint_of(cluster, view, id) && is_gone(cluster, ledger, id).await? {
            ledger.forget_return(id)?;
        }
    }
    for id in ledger.loans()? {
        // A loan that the store does not have was taken from this node while it was cut off.
        if !is_being_borrowed(ledger, id)
            && !has_endpoint_of(cluster, view, id)
            && is_gone(cluster, ledger, id).await?
        {
            ledger.void_loan(id)?;
        }
    }
    Ok(())
}

/// Deletes a request of this node, whatever its answer. A grant that comes later fails by it; one
/// that came before has left endpoints, which are given back.
async fn withdraw(cluster: &Cluster, key: &str) -> Result<(), AllocatorError> {
    if cluster.store().get(key).await?.entry.is_some() {
        cluster.store().transact(&[Op::delete(key)]).await?;
    }
    Ok(())
}

/// Deletes the endpoints of a loan, in both families at once, and its request.
async fn give_back(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &NetworkView,
    id: LoanId,
) -> Result<(), AllocatorError> {
    let network = ledger.network();
    let name = network.name();
    let mut ops = vec![];
    for (address, stored) in &view.endpoints {
        let Some(block) = network.block_of(*address) else { continue };
        if stored.record.loan != Some(id) || stored.record.node != *cluster.node() {
            continue;
        }
        let key = keys::endpoint(&network.id(), &block, *address);
        ops.push(Op::delete_if(key, stored.revision));
        if let Some(lender) = &stored.record.lender {
            let request = Op::delete(keys::request(lender, &network.id(), id));
            if !ops.contains(&request) {
                ops.push(request);
            }
        }
    }
    match cluster.store().transact(&cluster.with_revisions(ops)).await? {
        TxnOutcome::Committed => {
            info!("network {name}: loan {id} is given back");
            ledger.forget_return(id)?;
        }
        TxnOutcome::Conflict { reason, .. } => debug!("loan {id} is not given back yet: {reason}"),
    }
    Ok(())
}

/// Returns whether the store, asked directly, has no endpoint of the loan.
async fn is_gone(cluster: &Cluster, ledger: &Ledger, id: LoanId) -> Result<bool, AllocatorError> {
    // A store that was emptied has no endpoints either: that is no reason to disconnect a
    // container.
    if cluster.network_unless_removed(&ledger.network().id()).await?.is_none() {
        return Ok(false);
    }
    let endpoints = cluster.endpoints(&ledger.network().id()).await?;
    Ok(!endpoints.values().any(|stored| stored.record.loan == Some(id)))
}

/// Returns whether the view has an endpoint of the loan on this node.
fn has_endpoint_of(cluster: &Cluster, view: &NetworkView, id: LoanId) -> bool {
    let mut endpoints = view.endpoints.values().map(|stored| &stored.record);
    endpoints.any(|endpoint| endpoint.loan == Some(id) && endpoint.node == *cluster.node())
}
