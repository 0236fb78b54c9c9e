//! This node's record in the cluster store.
//!
//! The record says where to send this node's packets; a session that the agent renews holds it, so
//! that everybody can see whether the agent is alive. When the session ends the record stays: the
//! blocks of a node that is down are still its own.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::anyhow;
use log::{debug, info, warn};
use weft_model::NodeRecord;
use weft_node::{Cluster, NodeError};
use weft_store::{Backoff, SessionId, StoreError, keys, typed};

/// How long after its last sign of life an agent counts as dead. Consul doubles it at worst.
pub const TTL: Duration = Duration::from_secs(15);

/// Keeps this node's record current and held for as long as the future is polled.
///
/// Ends only with an error that no waiting cures: another machine goes by this node's name.
pub async fn keep(cluster: Cluster, vteps: Vec<IpAddr>) -> anyhow::Result<()> {
    let mut backoff = Backoff::new();
    let mut failing = false;
    loop {
        match cluster.take_hold(&vteps, TTL).await {
            Ok(session) => {
                info!("node {} is registered", cluster.node());
                backoff.reset();
                failing = false;
                renew(&cluster, &session).await;
                warn!("node {} is to be registered anew", cluster.node());
            }
            Err(error @ NodeError::NameTaken { .. }) => return Err(anyhow!(error)),
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

/// Renews the session until it is gone. A store that cannot be reached is asked again and again.
async fn renew(cluster: &Cluster, session: &SessionId) {
    loop {
        tokio::time::sleep(TTL / 3).await;
        match cluster.store().renew_session(session).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => debug!("renewing the session of node {}: {error}", cluster.node()),
        }
    }
}
