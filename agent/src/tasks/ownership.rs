//! Blocks, loans and kept addresses of one network: events from the store and the node, to the
//! block manager.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_allocator::AllocatorError;
use weft_allocator::block_manager::{BlockManager, Policy, low_water};
use weft_allocator::release::{Reason, free};
use weft_cluster::view::{Moves, NetworkMoves, NetworkRequests, Requests};
use weft_cluster::watcher::{self, Watched};
use weft_cluster::{ClusterError, NetworkView, networks as definitions};
use weft_files::FileError;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Block, LoanId, NetworkId, NetworkName, NodeName, device};
use weft_wiring::{Host, OwnAddress, SegmentState, WiringError};

use super::networks;
use crate::{Agent, off_thread, pace};

/// Interval of rounds while something expires.
const SOON: Duration = Duration::from_secs(10);

/// Least interval of rounds without a reason.
const SLOW: Duration = Duration::from_secs(60);

/// Delay before a failed round is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps a block manager at work for each network that this node knows. A single node has no other
/// to agree with.
pub async fn run(agent: &Agent, known: watch::Receiver<BTreeSet<NetworkId>>) {
    if agent.host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    networks::run("blocks", known, |id| keep(agent.clone(), id.clone())).await;
}

/// The block manager of a network, and what was reported.
struct Work {
    manager: BlockManager,
    /// The containers whose loss was reported.
    reported: BTreeSet<Holder>,
    /// Set once it was reported that there is no address for the host.
    lacks_address: bool,
    /// The blocks and loans of this node after the last round.
    own: (Vec<Block>, Vec<LoanId>),
}

/// Manages the ownership of network `id` for as long as the future is polled.
async fn keep(agent: Agent, id: NetworkId) {
    let name = id.name.clone();
    let config = agent.host.config();
    let data_dir = config.data_dir.clone();
    let policy = Policy { release_after: config.release_after };
    let cluster = agent.host.cluster().clone();
    let manager = BlockManager::new(cluster, data_dir.clone(), id.clone(), policy);
    let mut work =
        Work { manager, reported: BTreeSet::new(), lacks_address: false, own: (vec![], vec![]) };
    let mut reservations = agent.reservations.subscribe();
    let mut drained = agent.drained.clone();
    let mut own = None;
    let mut views = agent.watcher.network(&id);
    let mut all_requests = agent.watcher.requests();
    let mut all_moves = agent.watcher.moves();
    let (mut requests, mut moves) = (None, NetworkMoves::new());
    let mut next = Instant::now();
    let soon = SOON.min(policy.release_after).max(Duration::from_secs(1));
    loop {
        let is_due = tokio::select! {
            () = watcher::changed(&mut views) => true,
            () = watcher::changed(&mut all_requests) => {
                requests_of(&id, &mut all_requests) != requests
            }
            () = watcher::changed(&mut all_moves) => moves_of(&id, &mut all_moves) != moves,
            () = reservations.changed(&name) => {
                // A block may have become idle.
                next = next.min(Instant::now() + soon);
                *drained.borrow() || is_urgent(&agent.host, &name).await
            }
            Ok(()) = drained.changed() => true,
            () = tokio::time::sleep_until(next) => true,
        };
        if !is_due {
            continue;
        }
        requests = requests_of(&id, &mut all_requests);
        moves = moves_of(&id, &mut all_moves);
        let view = views.borrow_and_update().clone();
        let mut is_done = false;
        if let (Some(view), Some(requests)) = (view, requests.clone()) {
            let (host, network) = (agent.host.clone(), name.clone());
            work.manager.set_moves(moves.clone());
            work.manager.set_drained(*drained.borrow_and_update());
            let round = async move {
                let done = round(&host, &network, &mut work, &view, &requests).await;
                (work, done)
            };
            let what = || format!("network {name}: managing its blocks");
            let done;
            (work, done) = off_thread::run(what, round).await;
            is_done = report_round(&name, done);
            if own.as_ref() != Some(&work.own) {
                own = Some(work.own.clone());
                agent.here.send(&name);
            }
        }
        next = Instant::now()
            + match (is_done, work.manager.has_deadlines()) {
                (false, _) => RETRY,
                (true, true) => soon,
                (true, false) => pace::interval(&agent, SLOW),
            };
    }
}

/// Requests to this node for addresses of the network, once the store has answered.
fn requests_of(id: &NetworkId, all: &mut Watched<Requests>) -> Option<NetworkRequests> {
    let all = all.borrow_and_update().clone()?;
    Some(all.get(id).cloned().unwrap_or_default())
}

/// Requests to this node to hand blocks of the network over.
fn moves_of(id: &NetworkId, all: &mut Watched<Moves>) -> NetworkMoves {
    all.borrow_and_update().as_ref().and_then(|all| all.get(id).cloned()).unwrap_or_default()
}

/// Returns whether the round went well.
fn report_round(name: &NetworkName, done: Result<(), WiringError>) -> bool {
    match done {
        Ok(()) => true,
        // It is being removed, and so will be what this host has of it.
        Err(WiringError::Allocator(AllocatorError::Cluster(
            error @ (ClusterError::NoSuchNetwork { .. }
            | ClusterError::Removed { .. }
            | ClusterError::StoreLost { .. }
            | ClusterError::Recovering { .. }),
        ))) => {
            debug!("{error}");
            false
        }
        Err(error) => {
            warn!("network {name}: {error}; will retry in {} s", RETRY.as_secs());
            false
        }
    }
}

/// Returns whether a change by containers of this node cannot wait for the timer: addresses run
/// out, or a borrowed one came back.
async fn is_urgent(host: &Arc<Host>, name: &NetworkName) -> bool {
    let (data_dir, network) = (host.config().data_dir.clone(), name.clone());
    let count = async move {
        let Some(network) = definitions::cached(&data_dir, &network)? else { return Ok(false) };
        let low = low_water(&network);
        let ledger = Ledger::open(&data_dir, network)?;
        Ok::<_, ClusterError>(ledger.counts()?.free < low || !ledger.returns()?.is_empty())
    };
    let what = || format!("network {name}: counting its free addresses");
    off_thread::run(what, count).await.unwrap_or(true)
}

async fn round(
    host: &Host,
    name: &NetworkName,
    work: &mut Work,
    view: &NetworkView,
    requests: &NetworkRequests,
) -> Result<(), WiringError> {
    let done = work.manager.round(view, requests).await;
    // Whatever came of the round: what was lost by it, by an earlier one or by another program must
    // not wait for a round that goes well.
    let data_dir = &host.config().data_dir;
    if let Some(network) = definitions::cached(data_dir, name)? {
        let ledger = Ledger::open(data_dir, network)?;
        isolate(host, &ledger, &mut work.reported).await?;
        move_host(host, &ledger, &mut work.lacks_address).await?;
        work.own = (ledger.blocks()?, ledger.loans()?);
    }
    Ok(done?)
}

/// Disconnects containers whose addresses belong to other nodes, and frees the host's own address
/// if it is among them. What was reported is not reported again.
async fn isolate(
    host: &Host,
    ledger: &Ledger,
    reported: &mut BTreeSet<Holder>,
) -> Result<(), WiringError> {
    let network = ledger.network();
    let name = network.name();
    let stranded = ledger.stranded()?;
    reported.retain(|holder| stranded.iter().any(|reservation| &reservation.holder == holder));
    for reservation in stranded {
        let Some(attachment) = reservation.holder.attachment(name) else {
            // The host takes another address; see `move_host`.
            free(ledger, &reservation, Reason::Superseded)?;
            continue;
        };
        if reported.insert(reservation.holder.clone()) {
            report(host.cluster().node(), name, &reservation);
        }
        host.disconnect(&device::host_end(&attachment)).await?;
    }
    Ok(())
}

/// Takes an address off the host that is not its own any more, and gives it another one as soon as
/// there is one. `is_reported` says whether it was reported that there is none.
async fn move_host(
    host: &Host,
    ledger: &Ledger,
    is_reported: &mut bool,
) -> Result<(), WiringError> {
    let network = ledger.network();
    let name = network.name();
    let read = || SegmentState::read(&host.config().data_dir, name);
    let Some(state) = read() else { return Ok(()) };
    if !state.lacks_address {
        if !has_foreign_address(ledger, &state)? {
            *is_reported = false;
            return Ok(());
        }
        // Another node may have given it to a container: it must not wait for the new one.
        host.take_address_off(&state).await?;
        let lost: Vec<String> = state.node_addresses.iter().map(|a| a.ip().to_string()).collect();
        warn!(
            "network {name}: this host's address {} belongs to another node now; it is taken off",
            lost.join(", ")
        );
    }
    if !host.ensure(network, OwnAddress::Reserved).await?.lacks_address {
        info!("network {name}: this host has another address now");
        *is_reported = false;
    } else if !std::mem::replace(is_reported, true) {
        error!(
            "network {name}: there is no address for this host; it takes one as soon as there is \
             room: delete a container, or add a subnet with `weftctl network extend`"
        );
    }
    Ok(())
}

/// Returns whether the host has an address in the network that it does not hold.
fn has_foreign_address(ledger: &Ledger, state: &SegmentState) -> Result<bool, FileError> {
    if state.node_addresses.is_empty() || state.own_address() != OwnAddress::Reserved {
        return Ok(false);
    }
    let held = ledger.reservation(&Holder::Node)?.map(|held| held.addresses).unwrap_or_default();
    Ok(!state.node_addresses.iter().all(|address| held.contains(&address.ip())))
}

fn report(node: &NodeName, network: &NetworkName, reservation: &Reservation) {
    let addresses: Vec<String> = reservation.addresses.iter().map(ToString::to_string).collect();
    error!(
        "network {network}: {} of {} belongs to another node, since node {node} was removed from \
         the cluster while it was cut off; it is taken off the network: delete it, start it again",
        addresses.join(", "),
        reservation.holder
    );
}
