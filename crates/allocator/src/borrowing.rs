//! Borrowing: an address of another node's block, for a container of this node.
//!
//! The borrower's part. A process that borrows holds a file with the loan's name locked while it
//! works; the agent gives back a loan that no process is borrowing and that no reservation names
//! ([`returns`](crate::returns)). So a process may be killed at any moment.

use std::net::IpAddr;
use std::time::Duration;

use log::{debug, info};
use weft_cluster::cluster::unchanged;
use weft_cluster::{Cluster, ClusterError, environment};
use weft_files::{self as files, FileLock};
use weft_ledger::ledger::{About, Want};
use weft_ledger::reservation::Loan;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{LoanAnswer, LoanId, LoanRecord, NodeName};
use weft_store::{Op, TxnOutcome, keys, typed};

use crate::AllocatorError;
use crate::error::shown;
use crate::ownership::drained;

/// Limit for a lender's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit for asking one node after the other. Runtimes give up on a plugin after a while.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for waiting for another process of this node that gives a loan back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Most nodes to ask. Each request wakes all agents; the next attempt asks others.
const MOST_LENDERS: usize = 8;

/// Pause between two reads of a request in a store whose waits return at once.
const POLL: Duration = Duration::from_millis(5);

/// Outcome of a request to one lender.
enum Asked {
    Lent(Box<Reservation>),
    /// With the reason, and whether asking again is of no use.
    Refused(String, bool),
    Silent,
}

/// Borrows an address. `failure` is the error of the claim before: it names the node to ask, and is
/// the error, with the lenders' reasons, if no node lends.
pub(crate) async fn borrow(
    cluster: &Cluster,
    ledger: &Ledger,
    holder: &Holder,
    want: Want,
    about: About<'_>,
    failure: AllocatorError,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Reservation, AllocatorError> {
    if cluster.is_single_node() {
        return Err(failure);
    }
    let wanted = match want {
        Want::Any => None,
        Want::Exactly(pool, host) => {
            ledger.network().addresses(pool, host).and_then(|addresses| addresses.iter().next())
        }
    };
    let lenders = match &failure {
        AllocatorError::AddressElsewhere { owner, .. } => vec![owner.clone()],
        _ => lenders(cluster, ledger).await?,
    };
    let mut reasons = vec![];
    let mut settled = true;
    let start = cluster.environment().now();
    for (asked, lender) in lenders.iter().enumerate() {
        let so_far = cluster.environment().now().saturating_sub(start);
        if asked >= MOST_LENDERS || so_far > SEARCH_TIMEOUT {
            reasons.push(format!("{} more nodes were not asked yet", lenders.len() - asked));
            settled = false;
            break;
        }
        if !still_wanted() {
            let network = ledger.network().name().clone();
            return Err(AllocatorError::Unwanted { holder: Box::new(holder.clone()), network });
        }
        match ask(cluster, ledger, holder, lender, wanted, about).await? {
            Asked::Lent(reservation) => {
                info!(
                    "network {}: node {lender} lends {}",
                    ledger.network().name(),
                    shown(ledger, Want::Exactly(reservation.pool, reservation.host))
                );
                return Ok(*reservation);
            }
            Asked::Refused(reason, is_settled) => {
                settled &= is_settled;
                reasons.push(format!("node {lender}: {reason}"));
            }
            Asked::Silent => {
                settled = false;
                reasons.push(format!(
                    "node {lender} did not answer within {} s; is weftd running there?",
                    ANSWER_TIMEOUT.as_secs()
                ));
            }
        }
    }
    Err(failure.with_reasons(&reasons, settled))
}

/// The nodes that own blocks of the network and whose agents are alive, in random order. Drained
/// ones come last: what they lend keeps their blocks.
async fn lenders(cluster: &Cluster, ledger: &Ledger) -> Result<Vec<NodeName>, AllocatorError> {
    let members = cluster.members().await?;
    let owners = cluster.owners(&ledger.network().id()).await?;
    let alive = |name: &NodeName| members.get(name).is_some_and(|member| member.alive);
    let mut lenders: Vec<NodeName> =
        owners.into_keys().filter(|name| name != cluster.node() && alive(name)).collect();
    for i in (1..lenders.len()).rev() {
        let other = cluster.environment().random() % (i as u64 + 1);
        lenders.swap(i, usize::try_from(other).unwrap_or(0));
    }
    lenders.sort_by_key(|name| members.get(name).is_some_and(|member| member.record.drained));
    Ok(lenders)
}

async fn ask(
    cluster: &Cluster,
    ledger: &Ledger,
    holder: &Holder,
    lender: &NodeName,
    wanted: Option<IpAddr>,
    about: About<'_>,
) -> Result<Asked, AllocatorError> {
    let name = ledger.network().name();
    let id = LoanId::new(cluster.environment().random());
    let borrowing = Borrowing::begin(ledger, id, lender)?;
    let (_, network_revision) = cluster.current(ledger.network()).await?;
    let own = cluster.register(None).await?;
    if own.drained {
        borrowing.end();
        return Err(drained(cluster, ledger));
    }
    let record = LoanRecord {
        borrower: cluster.node().clone(),
        lender: lender.clone(),
        wanted,
        sticky: about.sticky.cloned(),
        answer: None,
    };
    let ops = [
        unchanged(keys::network(name), network_revision),
        unchanged(keys::node(cluster.node()), own.revision),
        Op::create(keys::request(lender, &ledger.network().id(), id), typed::encode(&record)?),
    ];
    if let TxnOutcome::Conflict { .. } = cluster.store().transact(&ops).await? {
        return Err(ClusterError::Contended { network: name.clone() }.into());
    }
    let Some(answer) = answer(cluster, &keys::request(lender, &ledger.network().id(), id)).await?
    else {
        // The request is withdrawn: no grant can come any more.
        borrowing.end();
        return Ok(Asked::Silent);
    };
    let asked = match answer {
        LoanAnswer::Refused { reason, by_itself } => Asked::Refused(reason, !by_itself),
        LoanAnswer::Granted { pool, host } => {
            let loan = Loan { id, lender: lender.clone() };
            match ledger.borrow(holder, (pool, host), &loan, about)? {
                Some(reservation) => Asked::Lent(Box::new(reservation)),
                None => Asked::Refused("the address is already in use on this node".into(), true),
            }
        }
    };
    if let Asked::Lent(_) = asked {
        // The loan stands; that the request goes too is only tidy.
        if let Err(error) = cluster
            .store()
            .transact(&[Op::delete(keys::request(lender, &ledger.network().id(), id))])
            .await
        {
            debug!("loan {id}: its request stays for the agent to remove: {error}");
            return Ok(asked);
        }
    }
    borrowing.end();
    Ok(asked)
}

/// Waits for the lender's answer to the request at `key`. If it does not come in time the request
/// is withdrawn in one step: afterwards it cannot come any more.
async fn answer(cluster: &Cluster, key: &str) -> Result<Option<LoanAnswer>, AllocatorError> {
    let store = cluster.store();
    let start = cluster.environment().now();
    let mut lookup = store.get(key).await?;
    loop {
        let (record, revision) = match &lookup.entry {
            Some(entry) => (typed::decode::<LoanRecord>(entry)?, entry.revision),
            // It was removed: this node or the lender was removed from the cluster.
            None => return Ok(None),
        };
        let waited = cluster.environment().now().saturating_sub(start);
        match record.answer {
            Some(answer @ LoanAnswer::Granted { .. }) => return Ok(Some(answer)),
            Some(answer @ LoanAnswer::Refused { .. }) => {
                store.transact(&[Op::delete_if(key, revision)]).await?;
                return Ok(Some(answer));
            }
            None if waited >= ANSWER_TIMEOUT => {
                let op = Op::delete_if(key, revision);
                if store.transact(&[op]).await? == TxnOutcome::Committed {
                    return Ok(None);
                }
                lookup = store.get(key).await?;
                continue;
            }
            None => {}
        }
        let left = ANSWER_TIMEOUT.saturating_sub(waited);
        let next = store.next_lookup(key, &lookup.cursor, left).await?;
        if next.cursor == lookup.cursor {
            cluster.environment().sleep(POLL).await;
        }
        lookup = next;
    }
}

/// The mark of a loan that a process of this node is working on: a locked file that names the
/// lender, so that the agent finds the request of a process that was killed.
#[derive(Debug)]
struct Borrowing(FileLock);

impl Borrowing {
    fn begin(ledger: &Ledger, id: LoanId, lender: &NodeName) -> Result<Self, AllocatorError> {
        files::create_private_dir(&ledger.dir().borrowings())?;
        let path = ledger.dir().borrowing(id);
        loop {
            // The agent may take the file for an abandoned one before it is locked, and remove it.
            if let Some(mut lock) = FileLock::try_take(&path)?
                && lock.is_current()
            {
                lock.write(lender.as_str())?;
                return Ok(Self(lock));
            }
        }
    }

    /// Ends the work: what is left of the loan is in the ledger.
    fn end(self) {
        let _ = std::fs::remove_file(self.0.path());
    }
}

/// Returns whether a process of this node is working on the loan.
pub(crate) fn is_being_borrowed(ledger: &Ledger, id: LoanId) -> bool {
    files::lock::is_held(&ledger.dir().borrowing(id))
}

/// Waits until no other process of this node is working on the loan, and takes it; `None` if that
/// takes long. With it a loan either goes back to its lender or to a container, never to both.
pub(crate) async fn lock_loan(
    cluster: &Cluster,
    ledger: &Ledger,
    id: LoanId,
) -> Result<Option<LoanLock>, AllocatorError> {
    files::create_private_dir(&ledger.dir().borrowings())?;
    let path = ledger.dir().borrowing(id);
    let environment = cluster.environment();
    loop {
        match environment::wait_for_lock(environment, &path, RETURN_TIMEOUT).await? {
            // The process that had it before has removed the file.
            Some(lock) if !lock.is_current() => {}
            lock => return Ok(lock.map(|lock| LoanLock(Some(lock)))),
        }
    }
}

/// As [`lock_loan`], without waiting. On a full file system the loan goes unlocked: no process can
/// take it over there.
pub(crate) fn try_lock_loan(
    ledger: &Ledger,
    id: LoanId,
) -> Result<Option<LoanLock>, AllocatorError> {
    let taken = files::create_private_dir(&ledger.dir().borrowings())
        .and_then(|()| FileLock::try_take(&ledger.dir().borrowing(id)));
    match taken {
        Err(error) if error.is_full() => Ok(Some(LoanLock(None))),
        lock => Ok(lock?.filter(FileLock::is_current).map(|lock| LoanLock(Some(lock)))),
    }
}

/// The lock of a loan. Its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct LoanLock(Option<FileLock>);

impl Drop for LoanLock {
    fn drop(&mut self) {
        if let Some(lock) = &self.0 {
            let _ = std::fs::remove_file(lock.path());
        }
    }
}

/// A loan that a process of this node began to borrow and did not finish. Its file is locked, so
/// that no process begins to use it.
pub(crate) struct Abandoned {
    /// The loan.
    pub(crate) id: LoanId,
    /// The node that was asked; `None` if the process was killed before it asked.
    pub(crate) lender: Option<NodeName>,
    /// The lock on the loan's file.
    pub(crate) lock: FileLock,
}

/// The loans that processes of this node left unfinished.
pub(crate) fn abandoned(ledger: &Ledger) -> Result<Vec<Abandoned>, AllocatorError> {
    let mut abandoned = vec![];
    for name in files::names_in(&ledger.dir().borrowings())? {
        let Ok(id) = name.parse() else { continue };
        let path = ledger.dir().borrowing(id);
        let Some(lock) = FileLock::try_take(&path)? else { continue };
        let lender = files::read(&path)?.and_then(|name| String::from_utf8(name).ok());
        abandoned.push(Abandoned { id, lender: lender.and_then(|n| n.parse().ok()), lock });
    }
    Ok(abandoned)
}
