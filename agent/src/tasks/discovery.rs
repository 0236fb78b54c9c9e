//! The networks that this host has, as the data directory shows them.
//!
//! Plugins note the definition and the devices of each network there. The kernel reports changes
//! (inotify), and a slow timer covers what it did not report.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use log::warn;
use tokio::sync::watch;
use weft_cluster::networks;
use weft_files::{Inode, create_private_dir};
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::{NetworkId, NetworkName};
use weft_wiring::SegmentState;

use crate::signals::Signals;

/// Interval of listings of the directory without an event.
const SLOW: Duration = Duration::from_secs(30);

/// Containers come in bursts; those within this time are one signal.
const CONTAINERS: Duration = Duration::from_millis(100);

/// Changes come in bursts; those within this time are one event.
const BURST: Duration = Duration::from_millis(5);

/// The networks of this host.
pub struct Found {
    /// Those that have devices here.
    pub with_devices: watch::Receiver<BTreeSet<NetworkId>>,
    /// Those whose definition is known here.
    pub with_definition: watch::Receiver<BTreeSet<NetworkId>>,
}

/// Starts to watch `data_dir`, with one instance of inotify: a user has 128 of them by default.
/// Ends when the receivers are dropped. `reservations` tells of reservations that have come or
/// gone.
pub fn start(data_dir: &Path, reservations: Signals) -> anyhow::Result<Found> {
    let dir = networks_dir(data_dir);
    create_private_dir(&dir)?;
    let inotify = Inotify::init().context("ask the kernel for file notifications")?;
    let mut watches = inotify.watches();
    watches
        .add(&dir, WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_FROM)
        .with_context(|| format!("watch {}", dir.display()))?;
    let events = inotify.into_event_stream(vec![0; 4096])?;
    let directory = Directory {
        data_dir: data_dir.to_owned(),
        watches,
        events,
        watched: HashMap::new(),
        reservations,
    };
    let (devices, with_devices) = watch::channel(BTreeSet::new());
    let (definitions, with_definition) = watch::channel(BTreeSet::new());
    tokio::spawn(directory.follow(devices, definitions));
    Ok(Found { with_devices, with_definition })
}

struct Directory {
    data_dir: PathBuf,
    watches: Watches,
    events: EventStream<Vec<u8>>,
    /// The directories of reservations, by their watches.
    watched: HashMap<WatchDescriptor, NetworkName>,
    reservations: Signals,
}

impl Directory {
    async fn follow(
        mut self,
        devices: watch::Sender<BTreeSet<NetworkId>>,
        definitions: watch::Sender<BTreeSet<NetworkId>>,
    ) {
        let (mut noted, mut known) = (Ids::default(), Ids::default());
        loop {
            let names = directories(&self.data_dir);
            for name in &names {
                let dir = NetworkDir::new(&self.data_dir, name);
                // A directory that is watched twice has one watch; one that is gone needs none.
                let _ = self.watches.add(dir.root(), WatchMask::MOVED_TO | WatchMask::DELETE);
                let mask = WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
                if let Ok(watch) = self.watches.add(dir.reservations(), mask) {
                    self.watched.insert(watch, name.clone());
                }
            }
            self.watched.retain(|_, name| names.contains(name));
            // A note counts if it was written in this namespace; it never becomes invalid in place.
            let of_note = |name: &NetworkName| SegmentState::read(&self.data_dir, name);
            let made = noted.of(
                &names,
                |name| self.dir(name).segment(),
                |name| of_note(name).map(|state| state.network.id()),
            );
            let defined = known.of(
                &names,
                |name| self.dir(name).definition(),
                |name| {
                    networks::cached(&self.data_dir, name)
                        .ok()
                        .flatten()
                        .map(|network| network.id())
                },
            );
            replace(&definitions, defined);
            replace(&devices, made);
            tokio::select! {
                () = self.changed() => {}
                () = definitions.closed() => return,
            }
        }
    }

    fn dir(&self, name: &NetworkName) -> NetworkDir {
        NetworkDir::new(&self.data_dir, name)
    }

    /// Waits until the networks may have changed, and tells of changed reservations meanwhile.
    async fn changed(&mut self) {
        let mut changed = BTreeSet::new();
        let event = async {
            while !self.next(&mut changed).await {
                // Containers come in bursts; those within this time are one signal.
                let more = async { while !self.next(&mut changed).await {} };
                let is_told = tokio::time::timeout(CONTAINERS, more).await.is_ok();
                for name in std::mem::take(&mut changed) {
                    self.reservations.send(&name);
                }
                if is_told {
                    break;
                }
            }
            let burst = async {
                loop {
                    self.next(&mut changed).await;
                }
            };
            let _ = tokio::time::timeout(BURST, burst).await;
        };
        let _ = tokio::time::timeout(SLOW, event).await;
        // Also those of containers that the timer came between.
        for name in changed {
            self.reservations.send(&name);
        }
    }

    /// Waits for an event. Notes the network if it is about its reservations; returns whether it is
    /// about the networks themselves. Never resolves once inotify fails: the timer covers that.
    async fn next(&mut self, changed: &mut BTreeSet<NetworkName>) -> bool {
        let Some(Ok(event)) = self.events.next().await else { return std::future::pending().await };
        match self.watched.get(&event.wd) {
            Some(name) => {
                changed.insert(name.clone());
                false
            }
            // Of other directories, or of all: some events were dropped.
            None => {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    changed.extend(self.watched.values().cloned());
                }
                true
            }
        }
    }
}

/// The networks that files are about, by the files as they were when they were read.
#[derive(Default)]
struct Ids(HashMap<NetworkName, (Inode, Option<NetworkId>)>);

impl Ids {
    /// The networks of the files of `names`. A file is read again once another is in its place.
    fn of(
        &mut self,
        names: &BTreeSet<NetworkName>,
        path: impl Fn(&NetworkName) -> PathBuf,
        read: impl Fn(&NetworkName) -> Option<NetworkId>,
    ) -> BTreeSet<NetworkId> {
        self.0.retain(|name, _| names.contains(name));
        for name in names {
            let Some(inode) = Inode::at(&path(name)) else {
                self.0.remove(name);
                continue;
            };
            if self.0.get(name).is_none_or(|(seen, id)| *seen != inode || id.is_none()) {
                self.0.insert(name.clone(), (inode, read(name)));
            }
        }
        self.0.values().filter_map(|(_, id)| id.clone()).collect()
    }
}

fn replace(sender: &watch::Sender<BTreeSet<NetworkId>>, names: BTreeSet<NetworkId>) {
    sender.send_if_modified(|known| {
        let changed = *known != names;
        *known = names;
        changed
    });
}

/// The networks that have a directory but no note of devices: those that a plugin is making, and
/// those whose removal was cut short.
pub fn without_note(data_dir: &Path) -> Vec<NetworkName> {
    let mut names: Vec<NetworkName> = directories(data_dir).into_iter().collect();
    names.retain(|name| SegmentState::read(data_dir, name).is_none());
    names
}

/// The networks that have a directory.
fn directories(data_dir: &Path) -> BTreeSet<NetworkName> {
    match weft_files::names_in(&networks_dir(data_dir)) {
        Ok(names) => names.into_iter().filter_map(|name| NetworkName::new(name).ok()).collect(),
        Err(error) => {
            warn!("{error}");
            BTreeSet::new()
        }
    }
}
