//! One network on this host: its devices, and the peers that the kernel must know.

use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use weft_cluster::cluster::KnownNode;
use weft_cluster::networks;
use weft_datapath::events::Events;
use weft_model::block::BlockRecord;
use weft_model::{Endpoint, Network, NetworkName, NodeName, device};
use weft_store::{keys, typed};
use weft_wiring::peer_table::Roster;
use weft_wiring::{Host, SegmentState, WiringError, network_removal};

use crate::local;
use crate::watch::{self, Watched};

/// How often to compare everything without a reason.
const SLOW: Duration = Duration::from_secs(30);

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_secs(2);

/// What a network's task waits for.
pub struct Watches {
    nodes: Watched,
    networks: Watched,
    blocks: Watched,
    endpoints: Watched,
}

impl Watches {
    /// Starts the watches of the network's own, beside those that all networks share.
    pub fn of(host: &Host, name: &NetworkName, nodes: Watched, networks: Watched) -> Self {
        let store = || host.cluster().store().clone();
        Self {
            nodes,
            networks,
            blocks: watch::prefix(store(), keys::blocks_prefix(name)),
            endpoints: watch::prefix(store(), keys::endpoints_prefix(name)),
        }
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = watch::changed(&mut self.nodes) => {}
            () = watch::changed(&mut self.networks) => {}
            () = watch::changed(&mut self.blocks) => {}
            () = watch::changed(&mut self.endpoints) => {}
        }
    }

    /// What the store says of the network, once it has said everything.
    fn roster(&mut self, own: &NodeName) -> Option<Roster> {
        let nodes = self.nodes.borrow_and_update().clone()?;
        let blocks = self.blocks.borrow_and_update().clone()?;
        let endpoints = self.endpoints.borrow_and_update().clone()?;
        // This node has a record, so a store that shows none shows nothing at all: Consul answers a
        // token that may not read with an empty list. That is no reason to forget the peers.
        let own = keys::node(own);
        if !nodes.iter().any(|entry| entry.key == own) {
            warn!(
                "the store does not show the record of this node; may the agent's token read it?"
            );
            return None;
        }
        Some(Roster {
            blocks: watch::read(&blocks, keys::block_of, |record: BlockRecord, _| record.node),
            nodes: watch::read(&nodes, keys::node_of, |record, entry| KnownNode {
                record,
                alive: entry.holder.is_some(),
            }),
            endpoints: watch::read(&endpoints, keys::endpoint_of, |record: Endpoint, _| record),
        })
    }

    /// The network's definition, as far as the store has said anything about it. What it said may
    /// be older than what a plugin has just learned and made.
    fn definition(&mut self, name: &NetworkName) -> Definition {
        let Some(entries) = self.networks.borrow_and_update().clone() else {
            return Definition::Unknown;
        };
        let key = keys::network(name);
        let Some(entry) = entries.iter().find(|entry| entry.key == key) else {
            return Definition::Removed;
        };
        match typed::decode(entry) {
            Ok(network) => Definition::Is(network),
            Err(error) => {
                warn!("{error}");
                Definition::Unknown
            }
        }
    }
}

/// What the store says of a network.
#[derive(Debug)]
enum Definition {
    /// Nothing yet, or nothing that can be read.
    Unknown,
    /// There is no such network.
    Removed,
    /// This.
    Is(Network),
}

/// What the store says now of the network called `name`.
async fn ask(host: &Host, name: &NetworkName) -> Result<Definition, WiringError> {
    let cluster = host.cluster();
    if let Some((network, _)) = cluster.network(name).await? {
        return Ok(Definition::Is(network));
    }
    // Consul shows nothing to a token that may not read. Whoever sees this node's record can read.
    let own = keys::node(cluster.node());
    match cluster.store().get(&own).await? {
        Some(_) => Ok(Definition::Removed),
        None => Ok(Definition::Unknown),
    }
}

/// Looks after network `name` until it is gone from this host.
pub async fn look_after(host: Arc<Host>, name: NetworkName, mut watches: Watches) {
    let mut news = News::default();
    let mut devices_in_doubt = true;
    let mut programmed = None;
    loop {
        // Before looking, so that nothing happens unseen in between.
        news.follow(device_names(&host, &name), &name);
        let outcome = round(&host, &name, &mut watches, &mut programmed, devices_in_doubt).await;
        let pause = match &outcome {
            Ok(Round::Done) => SLOW,
            Ok(Round::Removed) => return,
            Err(error) => {
                warn!("network {name}: {error}");
                RETRY
            }
        };
        let look = tokio::select! {
            () = watches.changed() => false,
            () = news.changed() => true,
            () = tokio::time::sleep(pause) => true,
        };
        // What was in doubt stays so until a round has gone well.
        devices_in_doubt = look || (devices_in_doubt && outcome.is_err());
    }
}

/// News from the kernel of the network's devices.
#[derive(Default)]
struct News {
    names: Vec<String>,
    events: Option<Events>,
}

impl News {
    /// Makes sure that it is these devices that there is news of. A network that was made anew may
    /// have others.
    fn follow(&mut self, names: Vec<String>, network: &NetworkName) {
        if self.names == names {
            return;
        }
        self.events = Events::subscribe(names.clone())
            .inspect_err(|error| {
                warn!("network {network}: no news of links from the kernel ({error})");
            })
            .ok();
        self.names = names;
    }

    async fn changed(&mut self) {
        match &mut self.events {
            Some(events) => events.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// The names of the network's devices.
fn device_names(host: &Host, name: &NetworkName) -> Vec<String> {
    let state = SegmentState::read(&host.config().data_dir, name);
    let names =
        state.map(|state| state.network.vni()).map(|vni| [device::bridge(vni), device::vxlan(vni)]);
    names.into_iter().flatten().collect()
}

enum Round {
    Done,
    Removed,
}

/// Compares all that should be with all that is. Where nothing is in doubt and the store says of
/// this network what was `programmed` last, there is nothing to compare.
async fn round(
    host: &Host,
    name: &NetworkName,
    watches: &mut Watches,
    programmed: &mut Option<Roster>,
    devices_in_doubt: bool,
) -> Result<Round, WiringError> {
    let data_dir = &host.config().data_dir;
    let Some(mut state) = SegmentState::read(data_dir, name) else { return Ok(Round::Removed) };
    let mut definition = watches.definition(name);
    let differs = match &definition {
        Definition::Unknown => false,
        Definition::Removed => true,
        Definition::Is(network) => network != &state.network,
    };
    if differs {
        // The watch may be behind, so the store is asked before anything is made or removed.
        definition = ask(host, name).await?;
        let Some(noted) = SegmentState::read(data_dir, name) else { return Ok(Round::Removed) };
        state = noted;
    }
    match definition {
        Definition::Removed => {
            if host.remove_if_unused(&state.network).await? {
                return Ok(Round::Removed);
            }
            warn!("network {name}: removed from the store, but this host has containers in it");
            return Ok(Round::Done);
        }
        Definition::Is(network) if network.vni() != state.network.vni() => {
            if host.remove_if_unused(&state.network).await? {
                return Ok(Round::Removed);
            }
            let (old, new) = (state.network.vni(), network.vni());
            warn!(
                "network {name}: removed from the store and made anew with vni {new}, but this \
                 host has containers in the old one, of vni {old}"
            );
            return Ok(Round::Done);
        }
        Definition::Is(network) if network != state.network => {
            info!("network {name}: its definition has changed");
            networks::cache(data_dir, &network)?;
            state = host.ensure(&network, state.own_address()).await?;
        }
        _ if devices_in_doubt => {
            let Some(repaired) = host.repair(&state).await? else { return Ok(Round::Removed) };
            if repaired != state {
                info!("network {name}: its devices were made anew");
                state = repaired;
            }
        }
        _ => {}
    }
    let Some(roster) = watches.roster(&host.config().node) else {
        debug!("network {name}: the store has not answered yet, peers stay as they are");
        return Ok(Round::Done);
    };
    if !devices_in_doubt && !differs && programmed.as_ref() == Some(&roster) {
        return Ok(Round::Done);
    }
    *programmed = None;
    let report = host.program_peers(&state, &roster).await?;
    if report.any() {
        info!("network {name}: {report}");
    }
    if report.failed == 0 {
        *programmed = Some(roster);
    }
    Ok(Round::Done)
}

/// Finishes removals that were cut short: those that had begun by renaming the network's directory,
/// and, once, those of networks that have a directory and no note. Never ends.
pub async fn finish_removals(host: Arc<Host>) {
    let data_dir = &host.config().data_dir;
    let mut in_doubt = local::without_note(data_dir);
    loop {
        for name in network_removal::unfinished(data_dir) {
            if let Err(error) = host.finish_removal(&name).await {
                warn!("network {name}: {error}");
            }
        }
        let mut still = vec![];
        for name in in_doubt {
            match remove_unknown(&host, &name).await {
                Ok(true) => {}
                Ok(false) => still.push(name),
                Err(error) => {
                    debug!("network {name}: {error}");
                    still.push(name);
                }
            }
        }
        in_doubt = still;
        tokio::time::sleep(if in_doubt.is_empty() { SLOW } else { RETRY }).await;
    }
}

/// Removes what is left of a network that has no note and that the store does not know. Says whether
/// the matter is settled.
async fn remove_unknown(host: &Host, name: &NetworkName) -> Result<bool, WiringError> {
    let data_dir = &host.config().data_dir;
    match ask(host, name).await? {
        Definition::Unknown => Ok(false),
        Definition::Is(_) => Ok(true),
        Definition::Removed => {
            // Without its definition nobody knows which devices were the network's.
            let Some(network) = networks::cached(data_dir, name)? else { return Ok(true) };
            if !host.remove_if_unused(&network).await? {
                warn!("network {name}: removed from the store, but this host has containers in it");
            }
            Ok(true)
        }
    }
}
