//! Bridge, VXLAN device and firewall rules of one network on this host.

use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};
use tokio::sync::watch;
use weft_allocator::AllocatorError;
use weft_cluster::watcher::{self, Definitions, Watched};
use weft_cluster::{ClusterError, networks};
use weft_files::Inode;
use weft_ledger::layout::NetworkDir;
use weft_model::{Network, NetworkId, NetworkName};
use weft_store::StoreError;
use weft_wiring::{Host, SegmentState, WiringError, network_removal};

use super::discovery;
use super::peers::Made;
use crate::{Agent, off_thread, pace};

/// Least interval of checks without a reason.
const SLOW: Duration = Duration::from_secs(30);

/// Delay before a failed pass is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// A network in the store.
#[derive(Debug)]
enum Definition {
    /// The store has not answered.
    Unknown,
    /// The network was removed, or seems to be.
    Removed,
    /// The store has another network of this name, or one that this cannot stand beside.
    Another(ClusterError),
    /// Its definition.
    Is(Network),
}

/// End of a pass.
enum Pass {
    Done(SegmentState),
    /// The store has no such network or another one, and containers of this host are in it; in
    /// words.
    Occupied(String),
    /// The network is gone from this host.
    Removed,
}

/// Keeps the devices of network `id` as they should be until the network is gone from this host,
/// and tells `made` of them. Each check because of an event is counted there: the kernel may have
/// dropped entries of a device that looks as before. One that a timer starts is no reason to
/// suspect that.
pub async fn keep(agent: Agent, id: NetworkId, made: watch::Sender<Made>) {
    let name = id.name.clone();
    let mut definitions = agent.watcher.definitions();
    let mut links = agent.links.subscribe();
    let mut underlay = agent.underlay.clone();
    let mut needs_check = true;
    let mut has_reason = true;
    let mut checks = 0;
    let mut occupied = None;
    let note = NetworkDir::new(&agent.host.config().data_dir, &name).segment();
    let mut noted = Inode::at(&note);
    loop {
        let definition = definition_of(&name, &mut definitions);
        let host = agent.host.clone();
        let work = pass(host, id.clone(), definition, needs_check);
        let what = || format!("network {name}: repairing its devices");
        let permit = if needs_check { agent.heavy.start().await } else { None };
        let passed = off_thread::run(what, work).await;
        drop(permit);
        match &passed {
            Ok(Pass::Done(state)) => {
                checks += u64::from(has_reason);
                made.send_if_modified(|last| {
                    let now = Some((checks, state.clone()));
                    let changed = *last != now;
                    *last = now;
                    changed
                });
            }
            Ok(Pass::Occupied(what)) => {
                if occupied.as_ref() != Some(what) {
                    error!("{what}");
                    occupied = Some(what.clone());
                }
            }
            Ok(Pass::Removed) => return,
            Err(error) => {
                warn!("network {name}: {error}; will retry in {} s", RETRY.as_secs());
                // Its own changes are events too: without a pause it would repeat itself at once.
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        // A plugin that made the network again has programmed peers as it saw them.
        let is_replaced = std::mem::replace(&mut noted, Inode::at(&note)) != noted;
        let vni = SegmentState::read(&agent.host.config().data_dir, &name)
            .map(|state| state.network.vni());
        let link_changed = async {
            match vni {
                Some(vni) => links.changed(vni).await,
                None => std::future::pending().await,
            }
        };
        let underlay_changed = async {
            if underlay.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let (check, mut reason) = tokio::select! {
            () = watcher::changed(&mut definitions) => (false, false),
            () = link_changed => (true, true),
            () = underlay_changed => (true, true),
            () = tokio::time::sleep(pace::interval(&agent, SLOW)) => (true, false),
        };
        reason |= is_replaced;
        (needs_check, has_reason) = (check, reason);
    }
}

/// The network's definition according to the watches. It may be older than what a plugin has just
/// learned and made.
fn definition_of(name: &NetworkName, definitions: &mut Watched<Definitions>) -> Definition {
    match definitions.borrow_and_update().as_deref() {
        None => Definition::Unknown,
        Some(all) => all.get(name).cloned().map_or(Definition::Removed, Definition::Is),
    }
}

/// The definition in the store now of a network that this host has. One that the store has lost is
/// written back.
async fn ask(host: &Host, network: &Network) -> Result<Definition, WiringError> {
    match host.cluster().current(network).await {
        Ok((network, _)) => Ok(Definition::Is(network)),
        Err(ClusterError::Removed { .. }) => Ok(Definition::Removed),
        Err(
            error @ (ClusterError::AnotherNetwork { .. }
            | ClusterError::VniTaken { .. }
            | ClusterError::Model(_)),
        ) => Ok(Definition::Another(error)),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether the network's record is there and cannot be read. The watch has reported that,
/// and shows when it can be read again.
fn is_unreadable(error: &WiringError) -> bool {
    let WiringError::Allocator(AllocatorError::Cluster(ClusterError::Store(error))) = error else {
        return false;
    };
    matches!(error, StoreError::BadValue { .. })
}

/// Compares devices and rules with the definition and with what was noted of them.
async fn pass(
    host: Arc<Host>,
    id: NetworkId,
    mut definition: Definition,
    needs_check: bool,
) -> Result<Pass, WiringError> {
    let (data_dir, name) = (&host.config().data_dir, &id.name);
    let noted = || SegmentState::read(data_dir, name).filter(|state| state.network.id() == id);
    let Some(mut state) = noted() else { return Ok(Pass::Removed) };
    let differs = match &definition {
        Definition::Unknown => false,
        Definition::Removed | Definition::Another(_) => true,
        Definition::Is(network) => network != &state.network,
    };
    if differs {
        // The watch may be behind, so the store is asked before anything is made or removed.
        let asked = ask(&host, &state.network).await;
        let Some(now) = noted() else { return Ok(Pass::Removed) };
        state = now;
        definition = match asked {
            Ok(definition) => definition,
            Err(error) => {
                // Without an answer, what was made is still what should be there.
                if needs_check {
                    host.repair(&state).await?;
                }
                if !is_unreadable(&error) {
                    return Err(error);
                }
                return Ok(Pass::Done(noted().unwrap_or(state)));
            }
        };
    }
    match definition {
        Definition::Removed | Definition::Another(_) => {
            if host.remove_if_unused(&state.network).await? {
                return Ok(Pass::Removed);
            }
            Ok(Pass::Occupied(match definition {
                Definition::Another(error) => error.to_string(),
                _ => format!("network {name}: it was removed, but this host has containers in it"),
            }))
        }
        Definition::Is(network) if network != state.network => {
            info!("network {name}: its definition has changed");
            networks::cache(data_dir, &network)?;
            Ok(Pass::Done(host.ensure(&network, state.own_address()).await?))
        }
        _ if needs_check => {
            let Some(repaired) = host.repair(&state).await? else { return Ok(Pass::Removed) };
            if repaired != state {
                info!("network {name}: its devices were repaired");
            }
            Ok(Pass::Done(repaired))
        }
        _ => Ok(Pass::Done(state)),
    }
}

/// Finishes removals that were cut short: those that had begun by renaming the network's directory,
/// and, once, those of networks that have a directory and no note. Never ends.
pub async fn finish_removals(host: Arc<Host>) {
    let mut unclear = discovery::without_note(&host.config().data_dir);
    loop {
        let host = host.clone();
        let work = async move {
            for name in network_removal::unfinished(&host.config().data_dir) {
                if let Err(error) = host.finish_removal(&name).await {
                    warn!("network {name}: {error}");
                }
            }
            let mut left = vec![];
            for name in unclear {
                match remove_unknown(&host, &name).await {
                    Ok(true) => {}
                    Ok(false) => left.push(name),
                    Err(error) => {
                        debug!("network {name}: {error}");
                        left.push(name);
                    }
                }
            }
            left
        };
        unclear = off_thread::run(|| "removing networks".to_owned(), work).await;
        tokio::time::sleep(if unclear.is_empty() { SLOW } else { RETRY }).await;
    }
}

/// Removes what is left of a network that has no note and that the store does not know. Returns
/// whether that is settled.
async fn remove_unknown(host: &Host, name: &NetworkName) -> Result<bool, WiringError> {
    // Without its definition nothing tells which devices were the network's.
    let Some(network) = networks::cached(&host.config().data_dir, name)? else { return Ok(true) };
    if matches!(ask(host, &network).await?, Definition::Removed)
        && !host.remove_if_unused(&network).await?
    {
        warn!("network {name}: it was removed, but this host has containers in it");
    }
    Ok(true)
}
