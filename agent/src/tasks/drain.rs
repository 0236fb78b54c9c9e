//! Draining: a node that is taken out of service gives back what it does not use.
//!
//! The block manager of each network gives back idle blocks. The host's own address keeps the first
//! one from being idle; so once no container is in a network, this task takes the network off the
//! host. The last block goes back then, as do blocks of networks that this host has no files of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use tokio::sync::watch;
use weft_allocator::draining::{give_back_unknown, is_unused};
use weft_cluster::{networks, watcher};
use weft_ledger::Ledger;
use weft_ledger::layout::NetworkDir;
use weft_model::{Network, NetworkId};
use weft_wiring::Host;

use crate::{Agent, off_thread, pace};

/// Least interval of passes on a drained node.
const PASS: Duration = Duration::from_secs(2);

/// Publishes whether this node is drained, for as long as the future is polled.
pub async fn follow(agent: &Agent, drained: watch::Sender<bool>) {
    let cluster = agent.host.cluster();
    let mut members = agent.watcher.members();
    loop {
        if let Some(members) = members.borrow_and_update().as_deref() {
            let now = members.get(cluster.node()).is_some_and(|member| member.record.drained);
            let changed = drained.send_if_modified(|last| std::mem::replace(last, now) != now);
            match (changed, now) {
                (true, true) => info!("node {} is drained", cluster.node()),
                (true, false) => info!("node {} is no longer drained", cluster.node()),
                (false, _) => {}
            }
        }
        watcher::changed(&mut members).await;
    }
}

/// Gives back what a drained node does not use, for as long as the future is polled.
pub async fn run(agent: &Agent) {
    if agent.host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    let mut drained = agent.drained.clone();
    loop {
        if drained.wait_for(|drained| *drained).await.is_err() {
            return std::future::pending().await;
        }
        let mut unknown = Unknown::All;
        while *drained.borrow_and_update() {
            let definitions = agent.watcher.definitions().borrow().clone();
            if let Some(definitions) = definitions {
                let defined = definitions.values().map(Network::id).collect();
                let work = pass(agent.host.clone(), defined, unknown);
                unknown = off_thread::run(|| "draining the node".to_owned(), work).await;
            }
            let _ = tokio::time::timeout(pace::interval(agent, PASS), drained.changed()).await;
        }
    }
}

/// Networks of which this node may own blocks without having files of them.
enum Unknown {
    /// Any: the first pass.
    All,
    /// These: the others were searched, and this host has had no files of them since.
    Some(BTreeSet<NetworkId>),
}

async fn pass(host: Arc<Host>, defined: BTreeSet<NetworkId>, unknown: Unknown) -> Unknown {
    let mut left = match unknown {
        Unknown::All => defined.clone(),
        Unknown::Some(names) => names.intersection(&defined).cloned().collect(),
    };
    let data_dir = &host.config().data_dir;
    match networks::all_cached(data_dir) {
        Ok(here) => {
            for network in here.iter().filter(|network| defined.contains(&network.id())) {
                if let Err(error) = leave(&host, network).await {
                    warn!("network {}: leaving it: {error:#}", network.name());
                }
                left.insert(network.id());
            }
        }
        Err(error) => warn!("{error}"),
    }
    let mut undone = BTreeSet::new();
    for id in left {
        if NetworkDir::new(data_dir, &id.name).root().exists() {
            undone.insert(id);
            continue;
        }
        match give_back_unknown(host.cluster(), data_dir, &id).await {
            Ok(true) => {}
            Ok(false) => drop(undone.insert(id)),
            Err(error) => {
                debug!("network {}: {error}", id.name);
                undone.insert(id);
            }
        }
    }
    Unknown::Some(undone)
}

/// Takes the network off this host if no container is in it.
async fn leave(host: &Host, network: &Network) -> anyhow::Result<()> {
    let ledger = Ledger::open(&host.config().data_dir, network.clone())?;
    if is_unused(&ledger)? && host.remove_if_unused(network).await? {
        info!("network {}: the node is drained and has left it", network.name());
    }
    Ok(())
}
