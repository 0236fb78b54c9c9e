//! The node agent: keeps what this node knows of the others current.
//!
//! Plugins need no agent to start a container. What they cannot do is to learn, between two
//! containers, that another node has claimed a block, wants to borrow an address, or has left. That
//! is the agent's work, and it does it level-triggered: each task waits until something *may* have changed, then compares all
//! that should be with all that is, and applies the difference. A change that was missed, made
//! twice or made by somebody else heals by itself.
//!
//! - [`presence`]: this node's record in the cluster store, held by a session.
//! - [`watch`]: prefixes of the store, as values that can be waited for.
//! - [`local`]: which networks this host has.
//! - [`segment`]: one task for each of them: devices and peers.
//! - [`stewards`], [`steward`]: one more for each: who owns which blocks and addresses.
//! - [`news`]: containers that come and go.
//! - [`sweep`]: addresses of containers that are gone without a DEL.
//!
//! Everything runs on one thread; the kernel and the store do the work. Nothing is torn down at the
//! end: an agent that stops, dies or is replaced leaves the data plane as it is, and the next one
//! adopts it.

pub mod local;
pub mod lock;
pub mod news;
pub mod presence;
pub mod segment;
pub mod steward;
pub mod stewards;
pub mod sweep;
pub mod watch;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use log::{error, info};
use tokio::task::{self, JoinSet};
use weft_cluster::{Cluster, NodeConfig};
use weft_datapath::netlink::Netlink;
use weft_datapath::underlay;
use weft_model::NetworkName;
use weft_store::keys;
use weft_wiring::Host;

/// How long to wait before a task that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(2);

/// Runs the agent until it fails for good. Dropping the future stops it.
pub async fn run(config: NodeConfig, cluster: Cluster) -> anyhow::Result<()> {
    let _only_one = lock::take(&config.data_dir)?;
    let netlink = Netlink::open().context("open a netlink socket")?;
    let underlay = underlay::find(&netlink, &weft_wiring::setup::selector(&config.underlay)).await;
    let vtep = match underlay {
        Ok(underlay) => underlay.vtep.to_string(),
        Err(error) if cluster.is_single_node() => {
            info!("no underlay ({error}); a single node needs none");
            "none".to_owned()
        }
        Err(error) => return Err(error).context("find the underlay"),
    };
    info!("node {}, vtep {vtep}, {}", config.node, cluster.store().describe());

    let store = cluster.store().clone();
    let host = Arc::new(Host::new(config, cluster, netlink));
    let nodes = watch::prefix(store.clone(), keys::nodes_prefix().to_owned());
    let networks = watch::prefix(store, keys::networks_prefix().to_owned());
    let presence = tokio::spawn(presence::keep(host.clone(), nodes.clone()));
    tokio::select! {
        ended = presence => ended.context("the task that keeps this node's record")?,
        ended = supervise(host.clone(), nodes, networks) => ended,
        () = stewards::supervise(host.clone()) => Ok(()),
        () = sweep::run(host) => Ok(()),
    }
}

/// Keeps one task running for each network that this host has.
///
/// A task ends by itself when its network is gone; it may be the one that is taking it away.
async fn supervise(
    host: Arc<Host>,
    nodes: watch::Watched,
    networks: watch::Watched,
) -> anyhow::Result<()> {
    let mut local = local::Networks::watch(&host.config().data_dir)?;
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<NetworkName, task::Id> = BTreeMap::new();
    tasks.spawn(segment::finish_removals(host.clone()));
    loop {
        for name in local.list() {
            if let Entry::Vacant(vacant) = running.entry(name) {
                let name = vacant.key().clone();
                info!("network {name}: looking after it");
                let watches = segment::Watches::of(&host, &name, nodes.clone(), networks.clone());
                let task = tasks.spawn(segment::look_after(host.clone(), name, watches));
                vacant.insert(task.id());
            }
        }
        let ended = tokio::select! {
            () = local.changed() => continue,
            Some(ended) = tasks.join_next_with_id() => ended,
        };
        let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, ())| *id);
        running.retain(|name, task| {
            if *task == id {
                info!("network {name}: gone from this host");
            }
            *task != id
        });
        if let Err(error) = ended {
            error!("a task of the agent's failed: {error}");
            tokio::time::sleep(AFTER_PANIC).await;
        }
    }
}
