//! Borrowing: an address of another node's block, for a container of this node.
//!
//! The borrower's part. A process that borrows holds a file of the loan's name locked for as long as
//! it is at it; a loan that nobody is borrowing any more and that no reservation names is given
//! back by the node's agent ([`tidy`]). So a process may be killed at any moment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use log::{debug, info};
use weft_files::{self as files, FileError, FileLock};
use weft_ledger::ledger::{About, Want};
use weft_ledger::reservation::Loan;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Block, Endpoint, LoanAnswer, LoanId, LoanRecord, NodeName};
use weft_store::{Op, Revision, TxnOutcome, keys, typed};

use crate::AllocatorError;
use crate::acquire::shown;
use weft_cluster::networks::unchanged;
use weft_cluster::{Cluster, ClusterError};

/// How long a lender may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to go on asking one node after the other. Runtimes give up on a plugin after a while.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(10);

/// How many nodes to ask. Each request is news to all agents; who tries again asks others.
const MOST_LENDERS: usize = 8;

/// How long to sleep between two looks for the answer, where the store's watch returns at once.
const POLL: Duration = Duration::from_millis(5);

/// How one lender was found.
enum Asked {
    Lent(Box<Reservation>),
    /// With the reason, and whether asking again is of no use.
    Refused(String, bool),
    Silent,
}

/// Borrows an address. `failure` is what a claim ended with: it names whom to ask, and is the error,
/// with the lenders' reasons, if nobody lends.
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
        if asked >= MOST_LENDERS || so_far > PATIENCE_WITH_ALL {
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
                    PATIENCE.as_secs()
                ));
            }
        }
    }
    Err(failure.with_reasons(&reasons, settled))
}

/// The nodes that own blocks of the network and whose agents live, in an order by chance.
async fn lenders(cluster: &Cluster, ledger: &Ledger) -> Result<Vec<NodeName>, AllocatorError> {
    let nodes = cluster.nodes().await?;
    let owners = cluster.owners(ledger.network().name()).await?;
    let alive = |name: &NodeName| nodes.get(name).is_some_and(|node| node.alive);
    let mut lenders: Vec<NodeName> =
        owners.into_keys().filter(|name| name != cluster.node() && alive(name)).collect();
    for i in (1..lenders.len()).rev() {
        let other = cluster.environment().random() % (i as u64 + 1);
        lenders.swap(i, usize::try_from(other).unwrap_or(0));
    }
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
    let borrowing = Borrowing::begin(ledger, id)?;
    let Some((_, network_revision)) = cluster.network(name).await? else {
        let store = cluster.store().describe();
        return Err(ClusterError::NoSuchNetwork { network: name.clone(), store }.into());
    };
    let node_revision = cluster.register(None).await?;
    let record = LoanRecord {
        borrower: cluster.node().clone(),
        lender: lender.clone(),
        wanted,
        sticky: about.sticky.cloned(),
        answer: None,
    };
    let ops = [
        unchanged(keys::network(name), network_revision),
        unchanged(keys::node(cluster.node()), node_revision),
        Op::create(keys::request(name, id), typed::encode(&record)?),
    ];
    if let TxnOutcome::Conflict { .. } = cluster.store().transact(&ops).await? {
        return Err(ClusterError::Contended { network: name.clone() }.into());
    }
    let Some(answer) = answer(cluster, ledger, id).await? else { return Ok(Asked::Silent) };
    let asked = match answer {
        LoanAnswer::Refused { reason, by_itself } => Asked::Refused(reason, !by_itself),
        LoanAnswer::Granted { pool, host } => {
            let loan = Loan { id, lender: lender.clone() };
            match ledger.borrow(holder, (pool, host), &loan, about)? {
                Some(reservation) => Asked::Lent(Box::new(reservation)),
                None => Asked::Refused("the address is in use on this node by now".into(), true),
            }
        }
    };
    if let Asked::Lent(_) = asked {
        // The loan stands; that the request goes too is only tidy.
        if let Err(error) = cluster.store().transact(&[Op::delete(keys::request(name, id))]).await {
            debug!("loan {id}: its request stays for the agent to remove: {error}");
            return Ok(asked);
        }
    }
    borrowing.end();
    Ok(asked)
}

/// Waits for the lender's answer. One that does not come in time is given up together with the
/// request, in one step: afterwards it can't come any more.
async fn answer(
    cluster: &Cluster,
    ledger: &Ledger,
    id: LoanId,
) -> Result<Option<LoanAnswer>, AllocatorError> {
    let key = keys::request(ledger.network().name(), id);
    let start = cluster.environment().now();
    let mut cursor = None;
    loop {
        let (record, revision) = match cluster.store().get(&key).await? {
            Some(entry) => (typed::decode::<LoanRecord>(&entry)?, entry.revision),
            // Somebody removed it: this node was removed from the cluster.
            None => return Ok(None),
        };
        let waited = cluster.environment().now().saturating_sub(start);
        match record.answer {
            Some(answer @ LoanAnswer::Granted { .. }) => return Ok(Some(answer)),
            Some(answer @ LoanAnswer::Refused { .. }) => {
                cluster.store().transact(&[Op::DeleteIf { key, revision }]).await?;
                return Ok(Some(answer));
            }
            None if waited >= PATIENCE => {
                let op = Op::DeleteIf { key: key.clone(), revision };
                if cluster.store().transact(&[op]).await? == TxnOutcome::Committed {
                    return Ok(None);
                }
                continue;
            }
            None => {}
        }
        let listing = match &cursor {
            None => cluster.store().list(&key).await?,
            Some(cursor) => {
                cluster.store().watch(&key, cursor, PATIENCE.saturating_sub(waited)).await?
            }
        };
        if cursor.as_ref() == Some(&listing.cursor) {
            cluster.environment().sleep(POLL).await;
        }
        cursor = Some(listing.cursor);
    }
}

/// The mark of a loan that a process of this node is working on: a locked file.
#[derive(Debug)]
struct Borrowing(FileLock);

impl Borrowing {
    fn begin(ledger: &Ledger, id: LoanId) -> Result<Self, AllocatorError> {
        files::create_private_dir(&ledger.dir().borrowings())?;
        let path = ledger.dir().borrowing(id);
        let lock = FileLock::try_take(&path)?;
        // The id is random: that another process has it is a fault of the random number generator.
        Ok(Self(lock.ok_or(FileError::Locked { path })?))
    }

    /// Ends the work: what is left of the loan is in the ledger.
    fn end(self) {
        let _ = std::fs::remove_file(self.0.path());
    }
}

/// Returns whether a process of this node is working on the loan.
fn is_being_borrowed(ledger: &Ledger, id: LoanId) -> bool {
    files::lock::is_held(&ledger.dir().borrowing(id))
}

/// Gives back what was released here, and what processes that were killed have left: endpoints and
/// requests of this node that nothing stands behind.
pub async fn tidy(cluster: &Cluster, ledger: &Ledger, view: &View) -> Result<(), AllocatorError> {
    let mut done = vec![];
    for (id, requested) in &view.requests {
        if requested.record.borrower == *cluster.node()
            && !is_being_borrowed(ledger, *id)
            && !view.has_endpoint_of(cluster, *id)
        {
            let key = keys::request(ledger.network().name(), *id);
            cluster.store().transact(&[Op::DeleteIf { key, revision: requested.revision }]).await?;
        }
    }
    let own = view.endpoints.values().filter(|(endpoint, _)| endpoint.node == *cluster.node());
    let mut loans: Vec<LoanId> = own.filter_map(|(endpoint, _)| endpoint.loan).collect();
    loans.sort_unstable();
    loans.dedup();
    for id in loans {
        if is_being_borrowed(ledger, id) || ledger.borrowed(id)?.is_some() {
            continue;
        }
        give_back(cluster, ledger, view, id).await?;
        done.push(id);
    }
    for id in ledger.returns()? {
        if !view.has_endpoint_of(cluster, id) && gone(cluster, ledger, id).await? {
            ledger.forget_return(id)?;
            done.push(id);
        }
    }
    for id in ledger.loans()? {
        // A loan that the store knows nothing of was taken from this node while it was cut off.
        if !is_being_borrowed(ledger, id)
            && !view.has_endpoint_of(cluster, id)
            && gone(cluster, ledger, id).await?
        {
            ledger.void_loan(id)?;
        }
    }
    for id in done {
        let _ = std::fs::remove_file(ledger.dir().borrowing(id));
    }
    Ok(())
}

/// Deletes the endpoints of a loan, in both families at once.
async fn give_back(
    cluster: &Cluster,
    ledger: &Ledger,
    view: &View,
    id: LoanId,
) -> Result<(), AllocatorError> {
    let name = ledger.network().name();
    let mut ops: Vec<Op> = view
        .endpoints
        .iter()
        .filter(|(_, (endpoint, _))| endpoint.loan == Some(id) && endpoint.node == *cluster.node())
        .map(|(address, (_, revision))| Op::DeleteIf {
            key: keys::endpoint(name, *address),
            revision: *revision,
        })
        .collect();
    if let Some(requested) = view.requests.get(&id) {
        ops.push(Op::DeleteIf { key: keys::request(name, id), revision: requested.revision });
    }
    match cluster.store().transact(&ops).await? {
        TxnOutcome::Committed => {
            info!("network {name}: loan {id} is given back");
            ledger.forget_return(id)?;
        }
        TxnOutcome::Conflict { what, .. } => debug!("loan {id} is not given back yet: {what}"),
    }
    Ok(())
}

/// Whether the store has no endpoint of the loan, asked directly.
async fn gone(cluster: &Cluster, ledger: &Ledger, id: LoanId) -> Result<bool, AllocatorError> {
    // Some stores answer a token that may not read with nothing. This node has a record, so a store
    // that does not show it shows nothing at all.
    if cluster.store().get(&keys::node(cluster.node())).await?.is_none() {
        return Ok(false);
    }
    let endpoints = cluster.endpoints(ledger.network().name()).await?;
    Ok(!endpoints.values().any(|endpoint| endpoint.loan == Some(id)))
}

/// A request as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// What it says.
    pub record: LoanRecord,
    /// When it was last written.
    pub revision: Revision,
}

/// What the cluster store says of a network, perhaps a little out of date.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The owners of its blocks.
    pub blocks: BTreeMap<Block, NodeName>,
    /// Its endpoints.
    pub endpoints: BTreeMap<IpAddr, (Endpoint, Revision)>,
    /// Requests for loans.
    pub requests: BTreeMap<LoanId, Requested>,
}

impl View {
    fn has_endpoint_of(&self, cluster: &Cluster, id: LoanId) -> bool {
        let mut endpoints = self.endpoints.values().map(|(endpoint, _)| endpoint);
        endpoints.any(|endpoint| endpoint.loan == Some(id) && endpoint.node == *cluster.node())
    }
}
