//! Returns: borrowed addresses that go back to their lenders.
//!
//! The agent's work on the borrower's node. A release puts the loan into the ledger's `returns/`
//! without asking the cluster; a process that was killed leaves a request or endpoints. The agent
//! goes through both and deletes what no reservation needs. A container that finds no free address
//! takes over a loan that is not given back yet.

use log::{debug, info};
use weft_cluster::{Cluster, NetworkView};
use weft_files as files;
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{LoanId, Sticky};
use weft_store::{Op, TxnOutcome, keys, typed};

use crate::AllocatorError;
use crate::borrowing::{Abandoned, abandoned, is_being_borrowed, lock_loan, try_lock_loan};

/// Gives back what was released here, and what processes that were killed have left: endpoints and
/// requests of this node that no reservation stands behind.
pub async fn tidy(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &NetworkView,
) -> Result<(), AllocatorError> {
    finish_abandoned(cluster, ledger, view).await?;
    let own = view.endpoints.values().filter(|stored| stored.record.node == *cluster.node());
    let mut loans: Vec<LoanId> = own.filter_map(|stored| stored.record.loan).collect();
    loans.sort_unstable();
    loans.dedup();
    for id in loans {
        if ledger.borrowed(id)?.is_none()
            && let Some(_lock) = try_lock_loan(ledger, id)?
            && ledger.borrowed(id)?.is_none()
        {
            give_back(cluster, ledger, view, id).await?;
        }
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

/// Withdraws what processes that were killed were borrowing, and gives it back if it was granted
/// and `view` shows that.
async fn finish_abandoned(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &NetworkView,
) -> Result<(), AllocatorError> {
    for Abandoned { id, lender, lock } in abandoned(ledger)? {
        if let Some(lender) = lender {
            withdraw(cluster, &keys::request(&lender, &ledger.network().id(), id)).await?;
        }
        if has_endpoint_of(cluster, view, id) && ledger.borrowed(id)?.is_none() {
            give_back(cluster, ledger, view, id).await?;
        }
        // A grant that the view does not show yet is given back when it does.
        files::remove(lock.path())?;
    }
    Ok(())
}

/// Does what is left of killed processes' borrowing, where no agent may do it.
pub(crate) async fn clean(cluster: &Cluster, ledger: &Ledger) -> Result<(), AllocatorError> {
    if files::names_in(&ledger.dir().borrowings())?.is_empty() {
        return Ok(());
    }
    let view = cluster.network_view(&ledger.network().id()).await?;
    finish_abandoned(cluster, ledger, &view).await
}

/// Gives `holder` an address that was borrowed, is released, and is not given back yet.
///
/// The loan's lock keeps the agent from giving it back meanwhile. A request of an agent that was
/// killed may still be on its way to the store: writing the endpoint again makes it fail.
pub(crate) async fn take_over(
    cluster: &Cluster,
    ledger: &Ledger,
    holder: &Holder,
    want: Want,
    about: About<'_>,
) -> Result<Option<Reservation>, AllocatorError> {
    let name = ledger.network().name();
    let identity = |sticky: &Sticky| sticky.identity.clone();
    for id in ledger.returns()? {
        // One that is given back at this moment is waited for: its lender can lend it then.
        let Some(_lock) = lock_loan(cluster, ledger, id).await? else { continue };
        let Some(returned) = ledger.returned(id)? else { continue };
        let is_wanted = match want {
            Want::Any => true,
            Want::Exactly(pool, host) => (pool, host) == (returned.pool, returned.host),
        };
        // The lender keeps it for its identity.
        if !is_wanted || returned.sticky.as_ref().map(identity) != about.sticky.map(identity) {
            continue;
        }
        let Some(block) = ledger.network().block_at(returned.pool, returned.host) else { continue };
        let endpoints = cluster.endpoints_of_block(&ledger.network().id(), &block).await?;
        let mut ops = vec![];
        for address in &returned.addresses {
            let Some(stored) = endpoints.get(address) else { continue };
            if stored.record.loan == Some(id) && stored.record.node == *cluster.node() {
                let key = keys::endpoint(&ledger.network().id(), &block, *address);
                ops.push(Op::update(key, stored.revision, typed::encode(&stored.record)?));
            }
        }
        if ops.is_empty() || ops.len() != returned.addresses.len() {
            continue;
        }
        let ops = cluster.with_revisions(ops);
        if cluster.store().transact(&ops).await? == TxnOutcome::Committed
            && let Some(reservation) = ledger.take_over(id, holder, about)?
        {
            info!("network {name}: {} keeps {} on loan {id}", holder, reservation.shown());
            return Ok(Some(reservation));
        }
    }
    Ok(None)
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
