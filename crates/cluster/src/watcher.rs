//! The cluster store, kept current by watches whose number does not grow with networks.
//!
//! One watch each follows the nodes, their heartbeats, the network definitions and the requests to
//! this node, and one for each of the [`weft_store::keys::SHARDS`] follows small *revision keys*,
//! of which every change of a block or an endpoint writes one. A change therefore costs a node the
//! answer of one shard, and only a node that has the network reads the group of blocks in it.
//!
//! A watch keeps its last state while the store cannot be reached: a store that is down is no
//! reason to forget a peer. After any error the prefix is listed again, and what differs from the
//! known revisions is read again, so no change is missed. As a cure for everything else each
//! network is read completely from time to time.

mod keeper;
mod outage;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_model::{Network, NetworkId, NetworkName, NodeName};
use weft_store::keys::Shard;
use weft_store::{Backoff, Cursor, Entry, Listing, StoreError, keys};

use crate::Cluster;
use crate::view::{self, Members, Moves, NetworkView, Requests};

use keeper::{Event, Keeper};
use outage::{Fault, Outage};

/// Time for which one question to the store may stay open; the default of Consul too. When it is
/// over, Consul answers with all entries although none has changed: at 1,000 nodes and 1,000
/// networks close to a megabyte. A connection whose other end is dead is found by probes of the
/// store's client, long before.
///
/// A wait is also no longer than the agent has run. Consul does not notice that the client of a
/// waiting question has gone: the connection counts until the question's time is over, against the
/// 200 that Consul takes from one host (`limits.http_max_conns_per_client`; seen with 1.8.7). So
/// what an agent leaves behind lasts no longer than it has run itself, and agents that start and
/// end one after the other, however they end, leave at most twice what one has. It costs an agent
/// seven answers more in its first five minutes.
const WAIT: Duration = Duration::from_secs(300);

/// The first waits of an agent.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// A wait that has lasted for so long was accepted. A store that answers lists proves nothing:
/// Consul may refuse the connection for the wait. Would delays start over with each list, the
/// agent's own retries could keep it out.
const HELD: Duration = Duration::from_secs(2);

/// Least time between two answers. A store in which much changes, or one that does not wait before
/// it answers, would otherwise keep the agent busy with reading.
const PACE: Duration = Duration::from_millis(50);

/// Pause before a prefix is listed again that a store which was emptied does not have yet.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// Network definitions by name.
pub type Definitions = BTreeMap<NetworkName, Network>;

/// A value that can be waited for; `None` until the store has answered for the first time.
pub type Watched<T> = watch::Receiver<Option<Arc<T>>>;

/// The cluster store as watched by this node's agent. Clones share the watches.
#[derive(Clone)]
pub struct Watcher {
    members: Watched<Members>,
    definitions: Watched<Definitions>,
    requests: Watched<Requests>,
    moves: Watched<Moves>,
    events: mpsc::UnboundedSender<Event>,
}

impl Watcher {
    /// Starts the watches. They end when the last clone is dropped. Called from within a runtime.
    pub fn start(cluster: &Cluster) -> Self {
        let (events, received) = mpsc::unbounded_channel();
        let outage = Arc::new(Outage::default());
        let follow = |prefix| follow(cluster, &outage, prefix);
        let members = watch_members(&follow);
        let definitions = project(follow(keys::networks_prefix().to_owned()), view::read_networks);
        let asked = follow(keys::requests_to(cluster.node()));
        let requests = project(asked.clone(), |entries, _| view::read_requests(entries));
        let moves = project(asked, |entries, _| view::read_moves(entries));
        // A single node has no other whose blocks it would have to know.
        if !cluster.is_single_node() {
            for shard in Shard::all() {
                forward(shard, follow(keys::revisions_of_shard(shard)), events.downgrade());
            }
            tokio::spawn(Keeper::new(cluster.clone()).run(received));
        }
        Self { members, definitions, requests, moves, events }
    }

    /// All nodes.
    pub fn members(&self) -> Watched<Members> {
        self.members.clone()
    }

    /// All network definitions.
    pub fn definitions(&self) -> Watched<Definitions> {
        self.definitions.clone()
    }

    /// Requests to this node to hand blocks over.
    pub fn moves(&self) -> Watched<Moves> {
        self.moves.clone()
    }

    /// Requests to this node.
    pub fn requests(&self) -> Watched<Requests> {
        self.requests.clone()
    }

    /// Blocks and endpoints of one network, for as long as the receiver lives. The requests in it
    /// are left empty: see [`Watcher::requests`].
    pub fn network(&self, id: &NetworkId) -> Watched<NetworkView> {
        let (sender, receiver) = watch::channel(None);
        // The keeper ends only together with the last clone of this.
        let _ = self.events.send(Event::Interest(id.clone(), sender));
        receiver
    }
}

/// Waits until a watched value is another than the receiver saw last. Never resolves once the watch
/// has ended.
pub async fn changed<T>(watched: &mut Watched<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The entries below a prefix, followed for as long as a receiver lives.
fn follow(cluster: &Cluster, outage: &Arc<Outage>, prefix: String) -> Watched<Vec<Entry>> {
    let (sender, receiver) = watch::channel(None);
    let (cluster, fault) = (cluster.clone(), Fault::new(outage.clone(), prefix.clone()));
    tokio::spawn(async move {
        let mut following = Following {
            cluster: &cluster,
            prefix: &prefix,
            sender: &sender,
            started: Instant::now(),
            backoff: Backoff::new(),
            fault,
        };
        while !sender.is_closed() {
            let error = tokio::select! {
                error = following.until_error() => error,
                () = sender.closed() => return,
            };
            following.fault.begins(&error);
            tokio::time::sleep(following.backoff.next_delay()).await;
        }
    });
    receiver
}

/// A prefix that is followed.
struct Following<'a> {
    cluster: &'a Cluster,
    prefix: &'a str,
    sender: &'a watch::Sender<Option<Arc<Vec<Entry>>>>,
    started: Instant,
    backoff: Backoff,
    fault: Fault,
}

impl Following<'_> {
    /// Lists, then follows, until the store fails.
    async fn until_error(&mut self) -> StoreError {
        let store = self.cluster.store();
        let mut listing = match store.list(self.prefix).await {
            Ok(listing) => listing,
            Err(error) => return error,
        };
        loop {
            let answered = Instant::now();
            if lacks_some(self.sender, &listing.entries)
                && let Err(error) = self.cluster.check_store().await
            {
                // What an emptied store does not show is not gone: the last known state stands
                // until nodes have written back what is their own.
                debug!("watching {}: {error}", self.prefix);
                tokio::time::sleep(AFTER_LOSS).await;
                listing = match store.list(self.prefix).await {
                    Ok(listing) => listing,
                    Err(error) => return error,
                };
                continue;
            }
            publish(self.sender, listing.entries);
            tokio::time::sleep_until(answered + PACE).await;
            listing = match self.next(&listing.cursor).await {
                Ok(listing) => listing,
                Err(error) => return error,
            };
        }
    }

    /// The next listing.
    async fn next(&mut self, cursor: &Cursor) -> Result<Listing, StoreError> {
        let wait = self.started.elapsed().clamp(FIRST_WAIT, WAIT);
        let mut next = self.cluster.store().next_listing(self.prefix, cursor, wait);
        let next = match tokio::time::timeout(HELD, &mut next).await {
            Ok(next) => next?,
            Err(_) => {
                self.succeeded();
                next.await?
            }
        };
        self.succeeded();
        Ok(next)
    }

    /// Notes that the store serves a wait.
    fn succeeded(&mut self) {
        self.backoff.reset();
        self.fault.ends(&self.cluster.store().describe());
    }
}

/// Returns whether keys that were there have gone.
fn lacks_some(sender: &watch::Sender<Option<Arc<Vec<Entry>>>>, entries: &[Entry]) -> bool {
    let keys: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let known = sender.borrow();
    known.iter().flat_map(|known| known.iter()).any(|entry| !keys.contains(entry.key.as_str()))
}

/// A watched value computed from a watched list of entries.
fn project<T: PartialEq + Send + Sync + 'static>(
    mut entries: Watched<Vec<Entry>>,
    read: impl Fn(&[Entry], Option<&T>) -> T + Send + 'static,
) -> Watched<T> {
    let (sender, receiver) = watch::channel::<Option<Arc<T>>>(None);
    tokio::spawn(async move {
        loop {
            if let Some(entries) = entries.borrow_and_update().clone() {
                let known = sender.borrow().clone();
                publish(&sender, read(&entries, known.as_deref()));
            }
            tokio::select! {
                () = sender.closed() => return,
                () = changed(&mut entries) => {}
            }
        }
    });
    receiver
}

/// Puts `value` into a watch; wakes its receivers only if it is another.
fn publish<T: PartialEq>(sender: &watch::Sender<Option<Arc<T>>>, value: T) {
    sender.send_if_modified(|last| {
        let is_new = last.as_deref() != Some(&value);
        if is_new {
            *last = Some(Arc::new(value));
        }
        is_new
    });
}

/// Nodes with their records and heartbeats, from the two prefixes.
fn watch_members(follow: &impl Fn(String) -> Watched<Vec<Entry>>) -> Watched<Members> {
    let nodes = follow(keys::nodes_prefix().to_owned());
    let mut nodes = project(nodes, view::read_nodes);
    let mut alive =
        project(follow(keys::alive_prefix().to_owned()), |entries, _| view::read_alive(entries));
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let known = nodes.borrow_and_update().clone();
            if let (Some(nodes), Some(alive)) = (known, alive.borrow_and_update().clone()) {
                publish(&sender, view::members(&nodes, &alive));
            }
            tokio::select! {
                () = sender.closed() => return,
                () = changed(&mut nodes) => {}
                () = changed(&mut alive) => {}
            }
        }
    });
    receiver
}

/// Tells the keeper what a shard's revision keys are, whenever they change.
fn forward(
    shard: Shard,
    mut revisions: Watched<Vec<Entry>>,
    events: mpsc::WeakUnboundedSender<Event>,
) {
    tokio::spawn(async move {
        loop {
            let known = revisions.borrow_and_update().clone();
            let Some(events) = events.upgrade() else { return };
            if let Some(entries) = known
                && events.send(Event::Revisions(shard, entries)).is_err()
            {
                return;
            }
            drop(events);
            changed(&mut revisions).await;
        }
    });
}

/// Returns whether the watched heartbeats and records show this node registered and alive; `true`
/// while the store has not answered.
pub fn shows_alive(members: &mut Watched<Members>, node: &NodeName) -> bool {
    let Some(members) = members.borrow_and_update().clone() else { return true };
    members.get(node).is_some_and(|member| member.alive && !member.record.removing)
}
