//! One network on this host: its devices, and the peers that the kernel must know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use weft_datapath::events::Events;
use weft_host::peers::Roster;
use weft_host::{Host, HostError, SegmentState};
use weft_model::block::BlockRecord;
use weft_model::{Endpoint, Network, NetworkName, NodeName, device};
use weft_node::cluster::KnownNode;
use weft_node::networks;
use weft_store::{Entry, keys, typed};

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
            _ = self.nodes.changed() => {}
            _ = self.networks.changed() => {}
            _ = self.blocks.changed() => {}
            _ = self.endpoints.changed() => {}
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
            blocks: read(&blocks, keys::block_of, |record: BlockRecord, _| record.node),
            nodes: read(&nodes, keys::node_of, |record, entry| KnownNode {
                record,
                alive: entry.holder.is_some(),
            }),
            endpoints: read(&endpoints, keys::endpoint_of, |record: Endpoint, _| record),
        })
    }

    /// The network's definition, as far as the store has said anything about it.
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
enum Definition {
    /// Nothing yet, or nothing that can be read.
    Unknown,
    /// There is no such network.
    Removed,
    /// This.
    Is(Network),
}

/// Decodes entries by key. One that cannot be read is reported and left out.
fn read<K: Ord, R: serde::de::DeserializeOwned, V>(
    entries: &[Entry],
    key: impl Fn(&str) -> Option<K>,
    value: impl Fn(R, &Entry) -> V,
) -> BTreeMap<K, V> {
    let decode = |entry: &Entry| match typed::decode::<R>(entry) {
        Ok(record) => Some((key(&entry.key)?, value(record, entry))),
        Err(error) => {
            warn!("{error}");
            None
        }
    };
    entries.iter().filter_map(decode).collect()
}

/// Looks after network `name` until it is gone from this host.
pub async fn look_after(host: Arc<Host>, name: NetworkName, mut watches: Watches) {
    let mut events = match Events::subscribe(device_names(&host, &name)) {
        Ok(events) => Some(events),
        Err(error) => {
            warn!("network {name}: no news of links from the kernel ({error})");
            None
        }
    };
    let mut devices_in_doubt = true;
    loop {
        let pause = match round(&host, &name, &mut watches, devices_in_doubt).await {
            Ok(Round::Done) => SLOW,
            Ok(Round::Removed) => return,
            Err(error) => {
                warn!("network {name}: {error}");
                RETRY
            }
        };
        let links_changed = async {
            match &mut events {
                Some(events) => events.changed().await,
                None => std::future::pending().await,
            }
        };
        devices_in_doubt = tokio::select! {
            () = watches.changed() => false,
            () = links_changed => true,
            () = tokio::time::sleep(pause) => true,
        };
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

/// Compares all that should be with all that is.
async fn round(
    host: &Host,
    name: &NetworkName,
    watches: &mut Watches,
    devices_in_doubt: bool,
) -> Result<Round, HostError> {
    let data_dir = &host.config().data_dir;
    let Some(mut state) = SegmentState::read(data_dir, name) else { return Ok(Round::Removed) };
    match watches.definition(name) {
        Definition::Removed => {
            if host.remove_if_unused(&state.network).await? {
                info!("network {name}: removed from the store, and now from this host");
                return Ok(Round::Removed);
            }
            warn!("network {name}: removed from the store, but this host has containers in it");
            return Ok(Round::Done);
        }
        Definition::Is(network) if network != state.network => {
            info!("network {name}: its definition has changed");
            networks::cache(data_dir, &network)?;
            state = host.ensure(&network, state.own_address()).await?;
        }
        _ if devices_in_doubt => {
            let repaired = host.repair(&state).await?;
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
    let report = host.program_peers(&state, &roster).await?;
    if report.any() {
        info!("network {name}: {report}");
    }
    Ok(Round::Done)
}
