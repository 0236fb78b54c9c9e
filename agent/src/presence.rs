//! This node's record in the cluster store.
//!
//! The record says where to send this node's packets; a session that the agent renews holds it, so
//! that everybody can see whether the agent is alive. When the session ends the record stays: the
//! blocks of a node that is down are still its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use log::{debug, info, warn};
use weft_cluster::ClusterError;
use weft_model::NodeRecord;
use weft_store::{Backoff, Entry, SessionId, keys, typed};
use weft_wiring::Host;

use crate::watch::{self, Watched};

/// How long after its last sign of life an agent counts as dead. Consul doubles it at worst.
pub const TTL: Duration = Duration::from_secs(15);

/// How the session came to need an end.
enum Lost {
    /// It ended, or the record is not what this agent wrote.
    Record,
    /// The underlay has another address now.
    Vteps,
}

/// Keeps this node's record current and held for as long as the future is polled.
///
/// Ends only with an error that no waiting cures: another machine goes by this node's name.
pub async fn keep(host: Arc<Host>, mut nodes: Watched) -> anyhow::Result<()> {
    let cluster = host.cluster();
    let mut backoff = Backoff::new();
    let mut failing = false;
    loop {
        let vteps = host.vteps().await;
        match cluster.take_hold(&vteps, TTL).await {
            Ok(session) => {
                info!("node {} is registered", cluster.node());
                backoff.reset();
                failing = false;
                match renew(&host, &session, &vteps, &mut nodes).await {
                    Lost::Record => warn!("node {} is to be registered anew", cluster.node()),
                    Lost::Vteps => info!("node {} has another VTEP now", cluster.node()),
                }
            }
            Err(error @ ClusterError::NameTaken { .. }) => return Err(anyhow!(error)),
            Err(error) => {
                if !failing {
                    warn!("registering node {}: {error}; trying on", cluster.node());
                    failing = true;
                }
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Renews the session until it is gone, or no longer holds what it should. A store that cannot be
/// reached is asked again and again.
async fn renew(host: &Host, session: &SessionId, vteps: &[IpAddr], nodes: &mut Watched) -> Lost {
    let cluster = host.cluster();
    let mut due = tokio::time::interval(TTL / 3);
    due.tick().await;
    loop {
        let is_due = tokio::select! {
            _ = due.tick() => true,
            () = watch::changed(nodes) => false,
        };
        // What the watch shows may be from before the record was written.
        if !shows(nodes, host, session) && is_lost(host, session).await {
            return Lost::Record;
        }
        if !is_due {
            continue;
        }
        match cluster.store().renew_session(session).await {
            Ok(true) => {}
            Ok(false) => return Lost::Record,
            Err(error) => {
                debug!("renewing the session of node {}: {error}", cluster.node());
                continue;
            }
        }
        // An underlay that is down for a moment is not another one.
        let now = host.vteps().await;
        if !now.is_empty() && now != vteps {
            return Lost::Vteps;
        }
    }
}

/// Whether the store, asked directly, says that the record is not held by the session.
async fn is_lost(host: &Host, session: &SessionId) -> bool {
    let cluster = host.cluster();
    match cluster.store().get(&keys::node(cluster.node())).await {
        Ok(Some(entry)) => !is_held(&entry, session),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn is_held(entry: &Entry, session: &SessionId) -> bool {
    entry.holder.as_ref() == Some(session)
        && typed::decode::<NodeRecord>(entry).is_ok_and(|record| !record.removing)
}

/// Whether the watched records show this node's, held by the session.
fn shows(nodes: &mut Watched, host: &Host, session: &SessionId) -> bool {
    let Some(entries) = nodes.borrow_and_update().clone() else { return true };
    let key = keys::node(host.cluster().node());
    entries.iter().any(|entry| entry.key == key && is_held(entry, session))
}
