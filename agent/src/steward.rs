//! Ownership of one network's blocks and loans: news from the store and the node, to the steward.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};
use tokio::time::Instant;
use weft_allocator::AllocatorError;
use weft_allocator::block_manager::{BlockManager, Policy};
use weft_allocator::borrowing::{Requested, View};
use weft_allocator::release::{Reason, free};
use weft_cluster::{ClusterError, networks};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::block::BlockRecord;
use weft_model::{NetworkName, NodeName, device};
use weft_store::keys;
use weft_wiring::setup::OwnAddress;
use weft_wiring::{Host, SegmentState, WiringError};

use crate::news::Reservations;
use crate::watch::{self, Watched};

/// How often to look at everything without a reason.
const SLOW: Duration = Duration::from_secs(10);

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_secs(2);

/// What the store says of a network, as watched.
pub struct Watches {
    /// Its blocks.
    pub blocks: Watched,
    /// Its endpoints.
    pub endpoints: Watched,
    /// Requests for loans.
    pub requests: Watched,
}

impl Watches {
    async fn changed(&mut self) {
        tokio::select! {
            () = watch::changed(&mut self.blocks) => {}
            () = watch::changed(&mut self.endpoints) => {}
            () = watch::changed(&mut self.requests) => {}
        }
    }

    /// What the store says, once it has said everything.
    fn view(&mut self) -> Option<View> {
        let blocks = self.blocks.borrow_and_update().clone()?;
        let endpoints = self.endpoints.borrow_and_update().clone()?;
        let requests = self.requests.borrow_and_update().clone()?;
        Some(View {
            blocks: watch::read(&blocks, keys::block_of, |record: BlockRecord, _| record.node),
            endpoints: watch::read(&endpoints, keys::endpoint_of, |r, entry| (r, entry.revision)),
            requests: watch::read(&requests, keys::request_of, |record, entry| Requested {
                record,
                revision: entry.revision,
            }),
        })
    }
}

/// Looks after the ownership of network `name` for as long as the future is polled.
pub async fn look_after(host: Arc<Host>, name: NetworkName, mut watches: Watches) {
    let data_dir = host.config().data_dir.clone();
    let policy = Policy { release_after: host.config().release_after };
    let mut steward =
        BlockManager::new(host.cluster().clone(), data_dir.clone(), name.clone(), policy);
    let mut here = Reservations::watch(&data_dir, &name);
    let slow = SLOW.min(policy.release_after).max(Duration::from_secs(1));
    let mut next = Instant::now();
    let mut reported = BTreeSet::new();
    loop {
        tokio::select! {
            () = watches.changed() => {}
            () = here.changed() => {
                if !is_urgent(&host, &name) {
                    continue;
                }
            }
            () = tokio::time::sleep_until(next) => {}
        }
        let done = match watches.view() {
            None => false,
            Some(view) => match round(&host, &name, &mut steward, &view, &mut reported).await {
                Ok(()) => true,
                // It is being removed, and so will be what this host has of it.
                Err(WiringError::Allocator(AllocatorError::Cluster(
                    error @ ClusterError::NoSuchNetwork { .. },
                ))) => {
                    debug!("{error}");
                    false
                }
                Err(error) => {
                    warn!("network {name}: {error}");
                    false
                }
            },
        };
        next = Instant::now() + if done { slow } else { RETRY };
    }
}

/// Whether what containers did on this node can't wait for the slow clock: addresses run out, or a
/// borrowed one came back.
fn is_urgent(host: &Host, name: &NetworkName) -> bool {
    let look = || {
        let data_dir = &host.config().data_dir;
        let Some(network) = networks::cached(data_dir, name)? else { return Ok(false) };
        let low = weft_allocator::block_manager::low_water(&network);
        let ledger = Ledger::open(data_dir, network)?;
        Ok::<_, AllocatorError>(ledger.counts()?.free < low || !ledger.returns()?.is_empty())
    };
    look().unwrap_or(true)
}

async fn round(
    host: &Host,
    name: &NetworkName,
    steward: &mut BlockManager,
    view: &View,
    reported: &mut BTreeSet<Holder>,
) -> Result<(), WiringError> {
    let done = steward.round(view).await;
    // Whatever came of the round: what was lost by it, by an earlier one or by another program must
    // not wait for a round that goes well.
    isolate(host, name, reported).await?;
    Ok(done?)
}

/// Keeps the traffic of containers off the network whose addresses are other nodes' by now, and
/// gives the host another address of its own if its own is among them. What was reported is not
/// reported again.
async fn isolate(
    host: &Host,
    name: &NetworkName,
    reported: &mut BTreeSet<Holder>,
) -> Result<(), WiringError> {
    let data_dir = &host.config().data_dir;
    let Some(network) = networks::cached(data_dir, name)? else { return Ok(()) };
    let ledger = Ledger::open(data_dir, network.clone())?;
    let stranded = ledger.stranded()?;
    reported.retain(|holder| stranded.iter().any(|reservation| &reservation.holder == holder));
    for reservation in stranded {
        if reported.insert(reservation.holder.clone()) {
            report(host.cluster().node(), name, &reservation);
        }
        if let Some(attachment) = reservation.holder.attachment(name) {
            host.disconnect(&device::host_end(&attachment)).await?;
        } else {
            // The host takes another address below.
            free(&ledger, &reservation, Reason::Superseded)?;
        }
    }
    let Some(state) = SegmentState::read(data_dir, name) else { return Ok(()) };
    if is_without_address(&ledger, &state)? {
        host.ensure(&network, state.own_address()).await?;
        info!("network {name}: this host has another address now");
    }
    Ok(())
}

/// Whether the host has an address in the network that it does not hold.
fn is_without_address(ledger: &Ledger, state: &SegmentState) -> Result<bool, AllocatorError> {
    if state.node_addresses.is_empty() || state.own_address() != OwnAddress::Reserved {
        return Ok(false);
    }
    let held = ledger.reservation(&Holder::Node)?.map(|held| held.addresses).unwrap_or_default();
    Ok(!state.node_addresses.iter().all(|address| held.contains(&address.ip())))
}

fn report(node: &NodeName, network: &NetworkName, reservation: &Reservation) {
    let addresses: Vec<String> = reservation.addresses.iter().map(ToString::to_string).collect();
    error!(
        "network {network}: {} of {} belongs to another node, since node {node} was removed from the \
         cluster while it was cut off; it is taken off the network: delete it and start it anew",
        addresses.join(", "),
        reservation.holder
    );
}
