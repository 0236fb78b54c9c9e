//! Blocks and endpoints of the networks that this node has, read again group by group.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use log::debug;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_model::NetworkName;
use weft_store::keys::{Group, Shard};
use weft_store::{Backoff, Entry, Revision, keys};

use super::{Definitions, Watched};
use crate::view::NetworkView;
use crate::{Cluster, ClusterError};

/// Interval of complete reads of a network without a reason.
const FULL_READ: Duration = Duration::from_secs(600);

/// Networks that are read at the same time.
const PARALLEL: usize = 4;

/// Events that the keeper acts on.
pub(super) enum Event {
    /// A task wants to know about a network.
    Interest(NetworkName, Sender),
    /// The revision keys of a shard.
    Revisions(Shard, Arc<Vec<Entry>>),
}

type Sender = watch::Sender<Option<Arc<NetworkView>>>;

/// The part of a network that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stale {
    All,
    Groups(BTreeSet<Group>),
}

/// A network that tasks of this node want to know about.
struct Kept {
    senders: Vec<Sender>,
    view: Option<Arc<NetworkView>>,
    stale: Option<Stale>,
    read_at: Instant,
}

/// Keeps the views of networks current.
pub(super) struct Keeper {
    cluster: Cluster,
    definitions: Watched<Definitions>,
    kept: BTreeMap<NetworkName, Kept>,
    /// The revision keys of each shard, as they were last seen.
    seen: BTreeMap<Shard, BTreeMap<(NetworkName, Group), Revision>>,
    backoff: Backoff,
}

impl Keeper {
    pub(super) fn new(cluster: Cluster, definitions: Watched<Definitions>) -> Self {
        let (kept, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, definitions, kept, seen, backoff: Backoff::new() }
    }

    /// Runs until all senders of events are dropped.
    pub(super) async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        loop {
            let pause = self.pause();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(event) = events.try_recv() {
                self.take(event);
            }
            self.drop_unwanted();
            self.read_stale().await;
        }
    }

    /// Time until something is to be read.
    fn pause(&mut self) -> Duration {
        if self.kept.values().any(|kept| kept.stale.is_some()) {
            return self.backoff.next_delay();
        }
        let oldest = self.kept.values().map(|kept| kept.read_at.elapsed()).max();
        FULL_READ.saturating_sub(oldest.unwrap_or_default()).max(Duration::from_secs(1))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Interest(name, sender) => match self.kept.entry(name) {
                MapEntry::Occupied(mut kept) => {
                    sender.send_replace(kept.get().view.clone());
                    kept.get_mut().senders.push(sender);
                }
                MapEntry::Vacant(vacant) => {
                    vacant.insert(Kept {
                        senders: vec![sender],
                        view: None,
                        stale: Some(Stale::All),
                        read_at: Instant::now(),
                    });
                }
            },
            Event::Revisions(shard, entries) => self.note_revisions(shard, &entries),
        }
    }

    /// Marks the groups whose revision keys have changed, come or gone since the shard was last
    /// seen.
    fn note_revisions(&mut self, shard: Shard, entries: &[Entry]) {
        let of = |entry: &Entry| Some((keys::revision_of(&entry.key)?, entry.revision));
        let now: BTreeMap<_, _> = entries.iter().filter_map(of).collect();
        let Some(before) = self.seen.insert(shard, now) else {
            // A network that was read before its shard was seen may have changed in between.
            for kept in self.kept.values_mut() {
                kept.stale = Some(Stale::All);
            }
            return;
        };
        let now = &self.seen[&shard];
        let is_changed = |key: &&(NetworkName, Group)| before.get(*key) != now.get(*key);
        for (name, group) in before.keys().chain(now.keys()).filter(is_changed) {
            let Some(kept) = self.kept.get_mut(name) else { continue };
            match kept.stale.get_or_insert_with(|| Stale::Groups(BTreeSet::new())) {
                Stale::All => {}
                Stale::Groups(groups) => drop(groups.insert(*group)),
            }
        }
    }

    /// Forgets networks that no task wants to know about any more.
    fn drop_unwanted(&mut self) {
        self.kept.retain(|_, kept| {
            kept.senders.retain(|sender| !sender.is_closed());
            !kept.senders.is_empty()
        });
    }

    /// Reads all that is stale. What fails stays stale.
    async fn read_stale(&mut self) {
        // Without the shards' revisions a change between two reads would go unseen.
        if self.seen.len() < Shard::all().count() {
            return;
        }
        let is_due = |kept: &Kept| kept.stale.is_some() || kept.read_at.elapsed() >= FULL_READ;
        let due = self.kept.iter().filter(|(_, kept)| is_due(kept));
        let due: Vec<(NetworkName, Stale, Option<Arc<NetworkView>>)> = due
            .map(|(name, kept)| {
                let stale = kept.stale.clone().unwrap_or(Stale::All);
                (name.clone(), stale, kept.view.clone())
            })
            .collect();
        let mut failed = false;
        for chunk in due.chunks(PARALLEL) {
            let reads =
                chunk.iter().map(|(name, stale, view)| self.read(name, stale, view.as_deref()));
            for ((name, ..), view) in chunk.iter().zip(join_all(reads).await) {
                let Some(kept) = self.kept.get_mut(name) else { continue };
                match view {
                    Ok(view) => kept.replace(view),
                    Err(error) => {
                        debug!("network {name}: {error}; keeping the last known blocks");
                        failed = true;
                    }
                }
            }
        }
        if !failed {
            self.backoff.reset();
        }
    }

    async fn read(
        &self,
        name: &NetworkName,
        stale: &Stale,
        view: Option<&NetworkView>,
    ) -> Result<NetworkView, ClusterError> {
        let definition = self.definitions.borrow().as_ref().and_then(|all| all.get(name).cloned());
        if let (Stale::Groups(groups), Some(view), Some(network)) = (stale, view, definition) {
            let mut view = view.clone();
            for group in groups {
                view.replace_group(&network, *group, self.cluster.group_view(name, *group).await?);
            }
            return Ok(view);
        }
        Ok(NetworkView {
            blocks: self.cluster.blocks(name).await?,
            endpoints: self.cluster.endpoints(name).await?,
            ..NetworkView::default()
        })
    }
}

impl Kept {
    fn replace(&mut self, view: NetworkView) {
        self.stale = None;
        self.read_at = Instant::now();
        if self.view.as_deref() == Some(&view) {
            return;
        }
        let view = Arc::new(view);
        self.view = Some(view.clone());
        for sender in &self.senders {
            sender.send_replace(Some(view.clone()));
        }
    }
}
