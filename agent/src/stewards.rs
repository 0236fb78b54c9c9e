//! One steward for each network that this node knows, whoever made its devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use tokio::task::JoinHandle;
use weft_cluster::networks;
use weft_model::NetworkName;
use weft_store::keys;
use weft_wiring::Host;

use crate::{steward, watch};

/// How often to look for networks that came or went. Nothing is in a hurry before a block is full.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps a steward at work for each network. A single node has nobody to agree with.
pub async fn supervise(host: Arc<Host>) {
    if host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    let mut tasks: BTreeMap<NetworkName, JoinHandle<()>> = BTreeMap::new();
    loop {
        match networks::all_cached(&host.config().data_dir) {
            Ok(known) => {
                tasks.retain(|name, task| {
                    let keep = known.iter().any(|network| network.name() == name);
                    if !keep {
                        task.abort();
                    }
                    keep && !task.is_finished()
                });
                for network in known {
                    let name = network.name();
                    if !tasks.contains_key(name) {
                        debug!("network {name}: looking after its blocks");
                        tasks.insert(name.clone(), start(&host, name));
                    }
                }
            }
            Err(error) => warn!("looking for networks: {error}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn start(host: &Arc<Host>, name: &NetworkName) -> JoinHandle<()> {
    let watch = |prefix| watch::prefix(host.cluster().store().clone(), prefix);
    let watches = steward::Watches {
        blocks: watch(keys::blocks_prefix(name)),
        endpoints: watch(keys::endpoints_prefix(name)),
        requests: watch(keys::requests_prefix(name)),
    };
    tokio::spawn(steward::look_after(host.clone(), name.clone(), watches))
}
