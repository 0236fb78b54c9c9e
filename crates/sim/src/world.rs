//! State that all nodes of a simulation share: the store, calls on their way, time and randomness.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use weft_cluster::Environment;
use weft_store::{
    Change, Cursor, Entry, Lease, Listing, Lookup, Op, Store, StoreError, TxnOutcome,
};

use crate::server::{Answer, Call, Sabotage, Server, lost};

/// Identifies a task of a node.
pub(crate) type TaskId = u64;

/// A call that has not been executed yet.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) node: usize,
    pub(crate) task: TaskId,
    pub(crate) call: Call,
}

/// An answer that has not arrived yet.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: u64,
    pub(crate) node: usize,
    pub(crate) task: TaskId,
    pub(crate) answer: Answer,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) server: Server,
    pub(crate) sent: Vec<Sent>,
    pub(crate) answered: Vec<Answered>,
    arrived: BTreeMap<u64, Answer>,
    /// By the time at which they are due.
    pub(crate) timers: BTreeMap<(Duration, u64), (usize, TaskId)>,
    pub(crate) time: Duration,
    pub(crate) random: fastrand::Rng,
    /// The task that is running.
    pub(crate) current: (usize, TaskId),
    next: u64,
}

/// A handle to the shared state.
#[derive(Debug, Clone)]
pub(crate) struct World(Arc<Mutex<Shared>>);

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            server: Server::new(sabotage),
            sent: vec![],
            answered: vec![],
            arrived: BTreeMap::new(),
            timers: BTreeMap::new(),
            time: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
            current: (0, 0),
            next: 0,
        })))
    }

    /// The shared state. Everything runs on one thread, so nobody waits.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets an answer arrive at the task that waits for it.
    pub(crate) fn deliver(&self, id: u64, answer: Answer) {
        self.lock().arrived.insert(id, answer);
    }

    async fn call(&self, call: Call) -> Result<Answer, StoreError> {
        let id = {
            let mut shared = self.lock();
            let id = shared.number();
            let (node, task) = shared.current;
            shared.sent.push(Sent { id, node, task, call });
            id
        };
        match (Arrival { world: self.clone(), id }).await {
            Answer::Failed => Err(lost()),
            answer => Ok(answer),
        }
    }
}

impl Shared {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// Waits for an answer.
struct Arrival {
    world: World,
    id: u64,
}

impl Future for Arrival {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        match self.world.lock().arrived.remove(&self.id) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    }
}

/// Waits for a moment.
struct Moment {
    world: World,
    due: (Duration, u64),
}

impl Future for Moment {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.world.lock().timers.contains_key(&self.due) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

#[async_trait]
impl Environment for World {
    fn now(&self) -> Duration {
        self.lock().time
    }

    async fn sleep(&self, duration: Duration) {
        let due = {
            let mut shared = self.lock();
            let due = (shared.time + duration, shared.number());
            let current = shared.current;
            shared.timers.insert(due, current);
            due
        };
        Moment { world: self.clone(), due }.await;
    }

    fn random(&self) -> u64 {
        self.lock().random.u64(..)
    }
}

/// An answer of another kind than the call's can't be.
fn mixed_up() -> StoreError {
    StoreError::Unexpected { store: "simulated store".into(), answer: "of another kind".into() }
}

impl World {
    /// Waits as a watch of a store does: an event comes some time between at once and never. About
    /// half of the stores' answers carry the state.
    async fn wait(&self, wait: Duration) -> bool {
        let pause = self.lock().random.f64();
        self.sleep(wait.mul_f64(pause * pause)).await;
        self.lock().random.bool()
    }
}

#[async_trait]
impl Store for World {
    async fn get(&self, key: &str) -> Result<Lookup, StoreError> {
        match self.call(Call::Get(key.to_owned())).await? {
            Answer::Lookup(lookup) => Ok(lookup),
            _ => Err(mixed_up()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        match self.call(Call::List(prefix.to_owned())).await? {
            Answer::Listing(listing) => Ok(listing),
            _ => Err(mixed_up()),
        }
    }

    async fn wait_key(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Option<Entry>>, StoreError> {
        if !self.wait(wait).await {
            return Ok(Change { cursor: cursor.clone(), state: None });
        }
        let lookup = self.get(key).await?;
        Ok(Change { cursor: lookup.cursor, state: Some(lookup.entry) })
    }

    async fn wait_prefix(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Vec<Entry>>, StoreError> {
        if !self.wait(wait).await {
            return Ok(Change { cursor: cursor.clone(), state: None });
        }
        let listing = self.list(prefix).await?;
        Ok(Change { cursor: listing.cursor, state: Some(listing.entries) })
    }

    async fn commit(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        match self.call(Call::Transact(ops.to_vec())).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => Err(mixed_up()),
        }
    }

    async fn grant_lease(&self, _: &str, _: Duration) -> Result<Lease, StoreError> {
        match self.call(Call::GrantLease).await? {
            Answer::Lease(lease) => Ok(lease),
            _ => Err(mixed_up()),
        }
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        match self.call(Call::RenewLease(lease.clone())).await? {
            Answer::Done(done) => Ok(done),
            _ => Err(mixed_up()),
        }
    }

    async fn revoke_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.call(Call::RevokeLease(lease.clone())).await.map(drop)
    }

    async fn put_leased(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: &Lease,
    ) -> Result<bool, StoreError> {
        let (key, lease) = (key.to_owned(), lease.clone());
        match self.call(Call::PutLeased { key, value, lease }).await? {
            Answer::Done(done) => Ok(done),
            _ => Err(mixed_up()),
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "simulated store".into()
    }

    fn is_single_node(&self) -> bool {
        false
    }
}
