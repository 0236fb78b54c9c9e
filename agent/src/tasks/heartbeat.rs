//! This node's record in the cluster store, and its heartbeat.
//!
//! The record says where to send this node's packets, and stays. The heartbeat is bound to a lease
//! that the agent renews, so that all nodes see whether it is alive.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use log::{debug, info, warn};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_cluster::store_identity::StoreState;
use weft_cluster::view::Members;
use weft_cluster::watcher::{self, Watched};
use weft_cluster::{Cluster, ClusterError};
use weft_model::NodeRecord;
use weft_store::{Backoff, Lease, StoreError, keys, typed};

use super::recovery;
use super::underlay::Seen;
use crate::Agent;

/// Time from its last renewal to the end of a lease. Consul doubles it at worst.
pub const TTL: Duration = Duration::from_secs(15);

/// Renewals after which the store is asked for this node's record without a reason.
const CHECK: u32 = 6;

/// The lease of the heartbeat, while there is one.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<Mutex<Option<Lease>>>);

impl Current {
    /// The lease, for the caller to end.
    pub fn take(&self) -> Option<Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, lease: Lease) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
    }
}

/// Reasons to register again.
enum Lost {
    /// The lease ended, or the record is not as this agent wrote it.
    Lease,
    /// The underlay has another address.
    Vteps,
}

/// Keeps this node's record and heartbeat current for as long as the future is polled.
///
/// Ends only with an error that no waiting cures: another machine has this node's name, or this
/// node's files are of another name.
pub async fn keep(agent: Agent, current: Current) -> anyhow::Result<()> {
    let cluster = agent.host.cluster();
    let mut members = agent.watcher.members();
    let mut underlay = agent.underlay.clone();
    let mut backoff = Backoff::new();
    let mut failing = false;
    loop {
        let vteps = vteps(&mut underlay);
        let delay = backoff.next_delay();
        match cluster.start_heartbeat(&vteps, TTL).await {
            Ok(lease) => {
                info!("node {} is registered", cluster.node());
                current.set(lease.clone());
                backoff.reset();
                failing = false;
                match renew(&agent, &lease, &vteps, &mut members, &mut underlay).await {
                    Lost::Lease => warn!("node {} must be registered again", cluster.node()),
                    Lost::Vteps => info!("node {} has another VTEP", cluster.node()),
                }
            }
            Err(error @ (ClusterError::NameTaken { .. } | ClusterError::Renamed { .. })) => {
                return Err(anyhow!(error));
            }
            Err(error @ ClusterError::StoreLost { .. }) => {
                warn!("{error}");
                if let Err(error) = recovery::write_back(&agent).await {
                    warn!("writing back what the store has lost: {error}");
                }
            }
            Err(error) => {
                if !failing {
                    let seconds = delay.as_secs_f32();
                    warn!(
                        "registering node {}: {error}; will retry in {seconds:.1} s",
                        cluster.node()
                    );
                    failing = true;
                }
            }
        }
        tokio::time::sleep(delay).await;
    }
}

/// The addresses that this node sends and receives VXLAN on.
fn vteps(underlay: &mut watch::Receiver<Seen>) -> Vec<IpAddr> {
    underlay.borrow_and_update().iter().map(|underlay| underlay.vtep).collect()
}

/// Renews the lease until it has ended, or record or heartbeat are not as they should be. A store
/// that cannot be reached is asked again.
async fn renew(
    agent: &Agent,
    lease: &Lease,
    vteps: &[IpAddr],
    members: &mut Watched<Members>,
    underlay: &mut watch::Receiver<Seen>,
) -> Lost {
    let cluster = agent.host.cluster();
    let mut due = tokio::time::interval(TTL / 3);
    due.tick().await;
    let mut renewals = 0;
    let mut recovering = None;
    loop {
        let is_due = tokio::select! {
            _ = due.tick() => true,
            () = watcher::changed(members) => false,
            Ok(()) = underlay.changed() => {
                if self::vteps(underlay) != vteps {
                    return Lost::Vteps;
                }
                false
            }
        };
        // The watches may show a state from before record and heartbeat were written, and keep a
        // record that cannot be read any more.
        renewals += u32::from(is_due);
        if is_due && (recovering.is_some() || renewals % CHECK == 1) {
            match cluster.store_state().await {
                Ok(StoreState::Lost) => return Lost::Lease,
                Ok(StoreState::Intact) => recovering = None,
                Ok(StoreState::Recovering) => {
                    let since = *recovering.get_or_insert_with(Instant::now);
                    if since.elapsed() >= recovery::TIME
                        && let Err(error) = cluster.end_recovery().await
                    {
                        debug!("{error}");
                    }
                }
                Err(error) => debug!("{error}"),
            }
        }
        if (!watcher::shows_alive(members, cluster.node()) || (is_due && renewals % CHECK == 0))
            && matches!(is_registered(cluster).await, Ok(false))
        {
            return Lost::Lease;
        }
        if !is_due {
            continue;
        }
        match cluster.store().renew_lease(lease).await {
            Ok(true) => {}
            Ok(false) => return Lost::Lease,
            Err(error) => {
                debug!("renewing the lease of node {}: {error}", cluster.node());
            }
        }
    }
}

/// Returns whether the store, asked directly, has this node's record and heartbeat.
async fn is_registered(cluster: &Cluster) -> Result<bool, StoreError> {
    let store = cluster.store();
    let record = store.get(&keys::node(cluster.node())).await?.entry;
    let heartbeat = store.get(&keys::alive(cluster.node())).await?.entry;
    let is_member = |entry| typed::decode::<NodeRecord>(&entry).is_ok_and(|r| !r.removing);
    Ok(record.is_some_and(is_member) && heartbeat.is_some())
}
