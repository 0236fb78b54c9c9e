//! Blocks and endpoints of the networks that this node has, read again group by group.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use log::warn;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_model::NetworkId;
use weft_store::keys::{Group, Shard};
use weft_store::{Backoff, Entry, Revision, keys};

use crate::view::{GroupView, Groups, NetworkView};
use crate::{Cluster, ClusterError};

/// Interval of complete reads of a network without a reason.
const FULL_READ: Duration = Duration::from_secs(600);

/// The same while some shard's revisions are not known: what changes in it is not noticed.
const BLIND_READ: Duration = Duration::from_secs(30);

/// Time that the shards have to come at the start, so that networks are read once and not again
/// with each.
const GRACE: Duration = Duration::from_secs(3);

/// Networks that are read at the same time.
const PARALLEL: usize = 4;

/// Events that the keeper acts on.
pub(super) enum Event {
    /// A task wants to know about a network.
    Interest(NetworkId, Sender),
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
    groups: Groups,
    view: Option<Arc<NetworkView>>,
    stale: Option<Stale>,
    /// The last complete read.
    read_at: Instant,
}

/// Keeps the views of networks current.
pub(super) struct Keeper {
    cluster: Cluster,
    kept: BTreeMap<NetworkId, Kept>,
    /// The revision keys of each shard, as they were last seen.
    seen: BTreeMap<Shard, BTreeMap<String, Revision>>,
    started: Instant,
    backoff: Backoff,
    failing: bool,
}

impl Keeper {
    pub(super) fn new(cluster: Cluster) -> Self {
        let (kept, seen) = (BTreeMap::new(), BTreeMap::new());
        let started = Instant::now();
        Self { cluster, kept, seen, started, backoff: Backoff::new(), failing: false }
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
        if let Some(left) = self.waits_for_shards() {
            return left;
        }
        if self.kept.values().any(|kept| kept.stale.is_some()) {
            return self.backoff.next_delay();
        }
        let oldest = self.kept.values().map(|kept| kept.read_at.elapsed()).max();
        self.full_read().saturating_sub(oldest.unwrap_or_default()).max(Duration::from_secs(1))
    }

    /// Returns whether the revisions of all shards are known.
    fn sees_all(&self) -> bool {
        self.seen.len() == Shard::all().count()
    }

    /// The time for which nothing is read yet, if some shard is missing.
    fn waits_for_shards(&self) -> Option<Duration> {
        let left = GRACE.saturating_sub(self.started.elapsed());
        (!self.sees_all() && !left.is_zero()).then_some(left)
    }

    /// Interval of complete reads.
    fn full_read(&self) -> Duration {
        if self.sees_all() { FULL_READ } else { BLIND_READ }
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
                        groups: Groups::new(),
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
        let now = entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        let Some(before) = self.seen.insert(shard, now) else {
            // A network that was read before its shard was seen may have changed in between.
            for kept in self.kept.values_mut() {
                kept.stale = Some(Stale::All);
            }
            return;
        };
        let now = &self.seen[&shard];
        let changed =
            before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key));
        for (name, group) in changed.filter_map(|key| keys::revision_of(key)) {
            for (_, kept) in self.kept.iter_mut().filter(|(id, _)| id.name == name) {
                match kept.stale.get_or_insert_with(|| Stale::Groups(BTreeSet::new())) {
                    Stale::All => {}
                    Stale::Groups(groups) => drop(groups.insert(group)),
                }
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
        // A shard that cannot be watched, for want of a right perhaps, keeps nothing else back:
        // when it comes, everything is read again.
        if self.waits_for_shards().is_some() {
            return;
        }
        let full_read = self.full_read();
        for kept in self.kept.values_mut().filter(|kept| kept.read_at.elapsed() >= full_read) {
            kept.stale = Some(Stale::All);
        }
        let stale = |(name, kept): (&NetworkId, &Kept)| {
            Some((name.clone(), kept.stale.clone()?, kept.groups.clone()))
        };
        let due: Vec<_> = self.kept.iter().filter_map(stale).collect();
        let mut failed = false;
        for chunk in due.chunks(PARALLEL) {
            let reads = chunk.iter().map(|(name, stale, groups)| self.read(name, stale, groups));
            for ((name, stale, _), groups) in chunk.iter().zip(join_all(reads).await) {
                let Some(kept) = self.kept.get_mut(name) else { continue };
                match groups {
                    Ok(groups) => kept.replace(stale, groups),
                    Err(error) => {
                        if !self.failing {
                            let name = &name.name;
                            warn!("network {name}: {error}; keeping the last known blocks");
                        }
                        failed = true;
                    }
                }
            }
        }
        self.failing = failed;
        if !failed {
            self.backoff.reset();
        }
    }

    /// Reads what is stale. Blocks and endpoints that have gone stay as they were while the store
    /// is not the one that this node knows: one that was emptied is no reason to disconnect
    /// containers.
    async fn read(
        &self,
        name: &NetworkId,
        stale: &Stale,
        known: &Groups,
    ) -> Result<Groups, ClusterError> {
        let groups = match stale {
            Stale::All => self.cluster.group_views(name, known).await?,
            Stale::Groups(changed) => {
                let mut groups = known.clone();
                for group in changed {
                    let before = known.get(group).map(Arc::as_ref);
                    let view = self.cluster.group_view(name, *group, before).await?;
                    groups.insert(*group, Arc::new(view));
                }
                groups
            }
        };
        if lacks_some(known, &groups) {
            self.cluster.check_store().await?;
        }
        Ok(groups)
    }
}

/// Returns whether blocks or endpoints that were there have gone.
fn lacks_some(known: &Groups, groups: &Groups) -> bool {
    let none = GroupView::default();
    known.iter().any(|(group, known)| {
        let now = groups.get(group).map_or(&none, Arc::as_ref);
        known.blocks.keys().any(|block| !now.blocks.contains_key(block))
            || known.endpoints.keys().any(|address| !now.endpoints.contains_key(address))
    })
}

impl Kept {
    fn replace(&mut self, stale: &Stale, groups: Groups) {
        self.stale = None;
        if *stale == Stale::All {
            self.read_at = Instant::now();
        }
        if self.view.is_some() && self.groups == groups {
            return;
        }
        let view = NetworkView::of_groups(groups.values());
        self.groups = groups;
        // Whether a group is empty or absent makes no difference.
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
