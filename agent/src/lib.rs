//! The node agent: keeps this node current about the others, and the others about this node.
//!
//! Plugins need no agent to start a container. What they cannot do is to learn, between two
//! containers, that another node has claimed a block, asks to borrow an address, or has left. That
//! is the agent's work. Its tasks are level-triggered: each waits until something *may* have
//! changed, then compares all that should be with all that is, and applies the difference. A change
//! that was missed, made twice or made by another program heals by itself.
//!
//! - [`tasks::heartbeat`]: this node's record and its lease.
//! - [`tasks::discovery`]: the networks that this host has.
//! - [`tasks::holdings`]: the networks in which this node owns blocks.
//! - [`tasks::devices`]: bridge, VXLAN device and firewall rules of one network.
//! - [`tasks::peers`]: the peers of one network that the kernel must know.
//! - [`tasks::ownership`]: blocks, loans and kept addresses of one network.
//! - [`tasks::recovery`]: what an emptied store has lost, written back.
//! - [`tasks::drain`]: what a drained node gives back.
//! - [`tasks::sweep`]: addresses of containers that are gone without a DEL.
//! - [`tasks::usage`]: what this node reports of the use of its blocks.
//! - [`tasks::underlay`]: the interface and address that carry the tunnels.
//! - [`supervisor`]: one task for each network, started again if it fails.
//! - [`pace`]: the rate of what timers start, and the number of heavy passes at once.
//! - [`signals`]: changes that one task tells another.
//! - [`off_thread`]: work that may block, away from the thread that serves.
//!
//! The cluster store is watched by [`weft_cluster::Watcher`], with a number of connections that
//! does not grow with networks. One thread polls all tasks; what may block runs on others. Nothing
//! is torn down at the end: an agent that stops, dies or is replaced leaves the data plane as it
//! is, and the next one adopts it.

pub mod off_thread;
pub mod pace;
pub mod signals;
pub mod singleton;
pub mod supervisor;
pub mod tasks;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use log::info;
use tokio::sync::watch;
use weft_cluster::{Cluster, NodeConfig, Watcher};
use weft_datapath::netlink::Netlink;
use weft_model::NetworkId;
use weft_store::Lease;
use weft_wiring::Host;

use tasks::{
    devices, discovery, drain, heartbeat, holdings, link_events, networks, ownership, sweep,
    underlay, usage,
};

/// Limit for giving the lease back at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// State that all tasks share.
#[derive(Clone)]
pub struct Agent {
    /// This host.
    pub host: Arc<Host>,
    /// The cluster store, watched.
    pub watcher: Watcher,
    /// Events of links.
    pub links: link_events::Links,
    /// The underlay.
    pub underlay: watch::Receiver<underlay::Seen>,
    /// The networks that have devices on this host.
    pub networks: watch::Receiver<BTreeSet<NetworkId>>,
    /// True while this node is drained.
    pub drained: watch::Receiver<bool>,
    /// Signals that own blocks or loans of a network have changed: what lives here is not looked
    /// for elsewhere, so the peers that the kernel must know depend on them.
    pub here: signals::Signals,
    /// Signals that reservations have come or gone.
    pub reservations: signals::Signals,
    /// The heavy passes under way.
    pub heavy: Arc<pace::Heavy>,
}

/// Runs the agent until it fails for good or `stop` resolves. The node counts as down as soon as it
/// has stopped.
pub async fn run(
    config: NodeConfig,
    cluster: Cluster,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    // An agent that runs already counts against another name, so this comes before the lock.
    cluster.claim_name()?;
    let _only_one = singleton::take(&config.data_dir)?;
    let netlink = Netlink::open_offloaded().context("open a netlink socket")?;
    // Passes are off this thread already. Would they put their requests on yet another of the same
    // threads, many of them could take all threads and wait for one more.
    let of_passes = Netlink::open_shared().context("open a netlink socket")?;
    let selector = weft_wiring::selector(&config.underlay);
    let underlay = match weft_datapath::underlay::find(&netlink, &selector).await {
        Ok(underlay) => Some(underlay),
        Err(error) if cluster.is_single_node() => {
            info!("no underlay ({error}); a single node needs none");
            None
        }
        Err(error) => return Err(error).context("find the underlay"),
    };
    let vtep = underlay.as_ref().map_or("none".to_owned(), |underlay| underlay.vtep.to_string());
    info!("node {}, vtep {vtep}, {}", config.node, cluster.store().describe());

    let watcher = Watcher::start(&cluster);
    let (seen, underlay) = watch::channel(underlay);
    let (is_drained, drained) = watch::channel(false);
    let reservations = signals::Signals::default();
    let found = discovery::start(&config.data_dir, reservations.clone())?;
    let agent = Agent {
        host: Arc::new(Host::new(config, cluster, of_passes)),
        watcher,
        links: link_events::Links::default(),
        underlay,
        networks: found.with_devices.clone(),
        drained,
        here: signals::Signals::default(),
        reservations: reservations.clone(),
        heavy: Arc::default(),
    };
    let lease = heartbeat::Current::default();
    let mut heartbeat = tokio::spawn(heartbeat::keep(agent.clone(), lease.clone()));
    let ended = tokio::select! {
        ended = &mut heartbeat => ended.context("the task that keeps this node's record")?,
        () = networks::connect(&agent, found.with_devices) => Ok(()),
        () = underlay::follow(&agent.host, netlink, agent.links.subscribe(), seen) => Ok(()),
        () = ownership::run(&agent, found.with_definition.clone()) => Ok(()),
        () = holdings::run(&agent, found.with_definition.clone()) => Ok(()),
        () = usage::run(&agent, found.with_definition) => Ok(()),
        () = drain::follow(&agent, is_drained) => Ok(()),
        () = drain::run(&agent) => Ok(()),
        () = devices::finish_removals(agent.host.clone()) => Ok(()),
        () = link_events::run(agent.links.clone()) => Ok(()),
        () = sweep::run(agent.host.clone()) => Ok(()),
        () = stop => Ok(()),
    };
    // It would see the lease end, and register this node again.
    if !heartbeat.is_finished() {
        heartbeat.abort();
        let _ = heartbeat.await;
    }
    say_farewell(&agent.host, lease.take()).await;
    ended
}

/// Ends the lease of the heartbeat, so that other nodes need not wait for it to expire.
async fn say_farewell(host: &Host, lease: Option<Lease>) {
    let Some(lease) = lease else { return };
    let store = host.cluster().store();
    if !matches!(tokio::time::timeout(FAREWELL, store.revoke_lease(&lease)).await, Ok(Ok(()))) {
        info!(
            "the store did not answer; node {} counts as alive until its lease ends",
            host.config().node
        );
    }
}
