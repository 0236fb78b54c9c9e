//! The networks in which this node owns blocks, whether or not it has files of them.
//!
//! A reboot empties the data directory, and leaves the node its blocks. Without this, nobody lends
//! from them, gives them back or answers for them until a container of the network comes. A network
//! that was removed while this node was away is left here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use tokio::sync::watch;
use weft_cluster::networks;
use weft_cluster::watcher::{self, Definitions};
use weft_model::NetworkId;
use weft_wiring::{Host, WiringError};

use crate::{Agent, off_thread, pace};

/// Least interval of looks without a reason.
const SLOW: Duration = Duration::from_secs(60);

/// Delay before a failed look is repeated.
const RETRY: Duration = Duration::from_secs(5);

/// Has the other tasks manage every network in which this node owns a block. `known` are those
/// whose definition this host has. Never ends.
pub async fn run(agent: &Agent, mut known: watch::Receiver<BTreeSet<NetworkId>>) {
    if agent.host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    let mut definitions = agent.watcher.definitions();
    let mut failing = false;
    loop {
        let here = known.borrow_and_update().clone();
        let mut pause = pace::interval(agent, SLOW);
        // A value that stays borrowed while this waits would stop the thread for good that sets it.
        let watched = definitions.borrow_and_update().clone();
        if let Some(definitions) = watched {
            let is_drained = *agent.drained.borrow();
            let work = pass(agent.host.clone(), definitions, here, is_drained);
            match off_thread::run(|| "looking for own blocks".to_owned(), work).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        warn!("looking for this node's blocks: {error}; will retry");
                    }
                    failing = true;
                    pause = RETRY;
                }
            }
        }
        tokio::select! {
            () = watcher::changed(&mut definitions) => {}
            Ok(()) = known.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn pass(
    host: Arc<Host>,
    definitions: Arc<Definitions>,
    known: BTreeSet<NetworkId>,
    is_drained: bool,
) -> Result<(), WiringError> {
    let (cluster, data_dir) = (host.cluster(), &host.config().data_dir);
    for id in cluster.owned_networks(cluster.node()).await? {
        let definition = definitions.get(&id.name).filter(|network| network.id() == id);
        match definition {
            Some(_) if known.contains(&id) => {}
            // A drained node gives its blocks back.
            Some(_) if is_drained => {}
            Some(network) => {
                // One that this host still has under the name is in the way until it is gone.
                if networks::cached(data_dir, &id.name)?.is_some() {
                    continue;
                }
                if cluster.still_owns_blocks(&id).await? {
                    networks::cache(data_dir, network)?;
                    info!("network {}: this node owns blocks of it", id.name);
                }
            }
            None if cluster.is_removed(&id).await? => leave(&host, &id).await?,
            // Neither there nor removed: what this host has of it is written back elsewhere.
            None => {}
        }
    }
    Ok(())
}

/// Leaves a network that was removed, unless this host has containers in it.
async fn leave(host: &Host, id: &NetworkId) -> Result<(), WiringError> {
    let cached = networks::cached(&host.config().data_dir, &id.name)?;
    if let Some(network) = cached.filter(|network| network.id() == *id)
        && !host.remove_if_unused(&network).await?
    {
        return Ok(());
    }
    host.cluster().leave_network(id).await?;
    info!("network {}: it was removed, and this node has left it", id.name);
    Ok(())
}
