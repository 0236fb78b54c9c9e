//! The tasks of each network that this host has.

use std::collections::BTreeSet;

use log::info;
use tokio::sync::watch;
use weft_model::NetworkId;

use super::{devices, peers};
use crate::Agent;
use crate::supervisor::Supervisor;

/// Keeps one task running for each of the networks in `found`. `what` names it in the log.
pub async fn run<F: Future<Output = ()> + Send + 'static>(
    what: &str,
    mut found: watch::Receiver<BTreeSet<NetworkId>>,
    start: impl Fn(&NetworkId) -> F,
) {
    let mut supervisor = Supervisor::default();
    let mut known = BTreeSet::new();
    loop {
        let now = found.borrow_and_update().clone();
        for NetworkId { name, .. } in now.difference(&known) {
            info!("network {name}: managing its {what}");
        }
        for NetworkId { name, .. } in known.difference(&now) {
            info!("network {name}: no longer managing its {what}");
        }
        known = now;
        supervisor.set(&known, &start);
        tokio::select! {
            changed = found.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = supervisor.ended() => {}
        }
    }
}

/// Keeps devices and peers of the networks in `found` as they should be.
pub async fn connect(agent: &Agent, found: watch::Receiver<BTreeSet<NetworkId>>) {
    run("devices and peers", found, connected(agent)).await;
}

/// Starts the task that keeps devices and peers of a network as they should be.
fn connected(agent: &Agent) -> impl Fn(&NetworkId) -> DevicesAndPeers {
    let agent = agent.clone();
    move |id| {
        let (agent, id) = (agent.clone(), id.clone());
        Box::pin(async move {
            let (state, made) = watch::channel(None);
            // What fails in one does not stop the other.
            tokio::select! {
                () = devices::keep(agent.clone(), id.clone(), state) => {}
                () = peers::keep(agent, id, made) => {}
            }
        })
    }
}

type DevicesAndPeers = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
