//! Lending: an address of this node's block, to another node.
//!
//! The lender's part, played by the node's agent. An address is set aside in the ledger before the
//! store hears of it, and is free again only when a write that follows all earlier ones has found
//! that there is no loan of it.

use log::{debug, info};
use weft_cluster::cluster::unchanged;
use weft_cluster::view::NetworkRequests;
use weft_cluster::{Cluster, NetworkView, Stored};
use weft_ledger::ledger::{Outcome, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Block, LoanAnswer, LoanId, LoanRecord, NodeRecord};
use weft_store::{Entry, Expected, Op, TxnOutcome, keys, typed};

use crate::ownership::{endpoints, renewed};
use crate::release::{self, Reason};
use crate::{AllocatorError, identities};

/// Answers the requests that are addressed to this node.
pub async fn answer(
    cluster: &Cluster,
    ledger: &Ledger,
    requests: &NetworkRequests,
) -> Result<(), AllocatorError> {
    for (id, requested) in requests {
        let record = &requested.record;
        if record.lender == *cluster.node() && record.answer.is_none() {
            answer_one(cluster, ledger, *id, requested).await?;
        }
    }
    Ok(())
}

async fn answer_one(
    cluster: &Cluster,
    ledger: &Ledger,
    id: LoanId,
    requested: &Stored<LoanRecord>,
) -> Result<(), AllocatorError> {
    let name = ledger.network().name();
    // A node that was removed, or is being removed, has no use for an address, and nobody would
    // give it back.
    let borrower = keys::node(&requested.record.borrower);
    let member = cluster.store().get(&borrower).await?.entry;
    let is_member = |entry: &Entry| typed::decode::<NodeRecord>(entry).is_ok_and(|r| !r.removing);
    let Some(member) = member.filter(is_member) else {
        let reason = "the node that asks is not in the cluster";
        return refuse(cluster, ledger, id, requested, reason, false).await;
    };
    let want = match requested.record.wanted {
        None => Want::Any,
        Some(address) => match ledger.network().locate(address) {
            Some((pool, host)) => Want::Exactly(pool, host),
            None => {
                let reason = "no subnet has this address";
                return refuse(cluster, ledger, id, requested, reason, false).await;
            }
        },
    };
    let sticky = requested.record.sticky.as_ref();
    let mut lent = ledger.lend(want, &requested.record.borrower, id, sticky)?;
    // An address that came back just now may be what is asked for.
    if matches!(lent, Outcome::NoRoom | Outcome::Taken(Holder::Lent { .. }))
        && reclaim_now(cluster, ledger).await?
    {
        lent = ledger.lend(want, &requested.record.borrower, id, sticky)?;
    }
    let reservation = match lent {
        Outcome::Held(reservation) => reservation,
        other => {
            let by_itself = match &other {
                Outcome::Taken(holder) => identities::is_itself(ledger, holder, sticky)?,
                _ => false,
            };
            let reason = match other {
                Outcome::Taken(holder) => format!("the address is held by {holder}"),
                Outcome::NoRoom => "its blocks are full".into(),
                Outcome::NotOwned(_) => "the address lies in none of its blocks".into(),
                _ => "the address is never handed out".into(),
            };
            return refuse(cluster, ledger, id, requested, &reason, by_itself).await;
        }
    };
    let (pool, host) = (reservation.pool, reservation.host);
    let block = block_of(ledger, &reservation)?;
    let owned = cluster.block_record(&ledger.network().id(), &block).await?;
    let Some(owned) = owned.filter(|owned| owned.record.node == *cluster.node()) else {
        // What the ledger believes is out of date, and will be put right.
        return refuse(cluster, ledger, id, requested, "it lost the block just now", false).await;
    };
    let granted =
        LoanRecord { answer: Some(LoanAnswer::Granted { pool, host }), ..requested.record.clone() };
    let mut ops = vec![
        unchanged(keys::block(&ledger.network().id(), &block), owned.revision),
        unchanged(borrower, member.revision),
        Op::update(
            keys::request(cluster.node(), &ledger.network().id(), id),
            requested.revision,
            typed::encode(&granted)?,
        ),
    ];
    let (borrower, lender) = (&requested.record.borrower, Some(cluster.node()));
    ops.extend(endpoints(ledger.network(), (pool, host), borrower, lender, Some(id))?);
    match cluster.store().transact(&cluster.with_revisions(ops)).await? {
        TxnOutcome::Committed => info!(
            "network {name}: {} is lent to node {}",
            reservation.addresses.first().map_or_else(String::new, ToString::to_string),
            requested.record.borrower
        ),
        // The request was withdrawn, or this is a second try of what had happened.
        TxnOutcome::Conflict { reason, .. } => debug!("loan {id} is not granted: {reason}"),
    }
    Ok(())
}

async fn refuse(
    cluster: &Cluster,
    ledger: &Ledger,
    id: LoanId,
    requested: &Stored<LoanRecord>,
    reason: &str,
    by_itself: bool,
) -> Result<(), AllocatorError> {
    let answer = Some(LoanAnswer::Refused { reason: reason.to_owned(), by_itself });
    let refused = LoanRecord { answer, ..requested.record.clone() };
    let key = keys::request(cluster.node(), &ledger.network().id(), id);
    let expected = Expected::Revision(requested.revision);
    cluster.store().compare_and_set(&key, expected, typed::encode(&refused)?).await?;
    Ok(())
}

/// Takes back what was lent and is not any more.
///
/// The view may be older than a loan, so it only says where to look. What decides is a transaction
/// that writes the block's record and requires that neither endpoint nor request exists: it comes
/// after every grant that was sent before, and a grant that is still on its way fails by it.
pub async fn reclaim(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &NetworkView,
    requests: &NetworkRequests,
) -> Result<(), AllocatorError> {
    for reservation in ledger.lent()? {
        let Holder::Lent { loan, .. } = &reservation.holder else { continue };
        let stands =
            reservation.addresses.iter().any(|address| view.endpoints.contains_key(address));
        let asked = loan.is_some_and(|id| requests.contains_key(&id));
        if !stands && !asked {
            reclaim_one(cluster, ledger, &reservation, *loan).await?;
        }
    }
    Ok(())
}

/// Takes back what the store, asked now, shows to have come back, and returns whether there was
/// anything lent.
async fn reclaim_now(cluster: &Cluster, ledger: &Ledger) -> Result<bool, AllocatorError> {
    if ledger.lent()?.is_empty() {
        return Ok(false);
    }
    let network = ledger.network().id();
    let endpoints = cluster.endpoints(&network).await?;
    let view = NetworkView { endpoints, ..NetworkView::default() };
    reclaim(cluster, ledger, &view, &cluster.requests(&network).await?).await?;
    Ok(true)
}

async fn reclaim_one(
    cluster: &Cluster,
    ledger: &Ledger,
    reservation: &Reservation,
    loan: Option<LoanId>,
) -> Result<(), AllocatorError> {
    let id = ledger.network().id();
    let block = block_of(ledger, reservation)?;
    if !ledger.owns(&block) {
        // The block is another node's, which manages the address from now on.
        release::free(ledger, reservation, Reason::Superseded)?;
        return Ok(());
    }
    let owned = cluster.block_record(&id, &block).await?;
    let Some(owned) = owned.filter(|owned| owned.record.node == *cluster.node()) else {
        return Ok(());
    };
    let mut ops = vec![renewed(&id, &block, &owned)?];
    for address in &reservation.addresses {
        ops.push(Op::check(keys::endpoint(&id, &block, *address), Expected::Absent));
    }
    if let Some(loan) = loan {
        ops.push(Op::check(keys::request(cluster.node(), &id, loan), Expected::Absent));
    }
    if cluster.store().transact(&ops).await? == TxnOutcome::Committed {
        release::free(ledger, reservation, Reason::Returned)?;
    }
    Ok(())
}

fn block_of(ledger: &Ledger, reservation: &Reservation) -> Result<Block, AllocatorError> {
    let network = ledger.network();
    network.block_at(reservation.pool, reservation.host).ok_or_else(|| AllocatorError::Stranded {
        holder: Box::new(reservation.holder.clone()),
        address: reservation.addresses.first().map_or_else(String::new, ToString::to_string),
        network: network.name().clone(),
    })
}
