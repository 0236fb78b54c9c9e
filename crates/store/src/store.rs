#![doc = include_str!("store/contract.md")]
#![doc = ""]
#![doc = include_str!("store/etcd.md")]
#![doc = ""]
#![doc = include_str!("store/zookeeper.md")]

use std::fmt;
use std::time::Duration;

use crate::{Expected, Op, StoreError, TxnOutcome, txn};

/// The last write of a key. Only equality means anything, and only within the life of one key: a
/// key that was deleted and created again has a revision that it never had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(u64);

/// A point in the history of a key or a prefix, from which to wait for changes. It means something
/// only to the store that gave it, and only for the same key or prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(u64);

/// The name of a lease. Any process with access to the store can renew it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease(String);

impl Revision {
    /// For stores: the revision with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// For stores: the number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Cursor {
    /// For stores: the cursor with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// For stores: the number.
    pub fn get(&self) -> u64 {
        self.0
    }
}

impl Lease {
    /// For stores: the lease with this id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// For stores: the id.
    pub fn id(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, relative to the store's prefix.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Its last write.
    pub revision: Revision,
}

/// The state of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The entry; `None` if the key does not exist.
    pub entry: Option<Entry>,
    /// Start of [`Store::wait_key`] for the same key.
    pub cursor: Cursor,
}

/// All entries under a prefix at one moment, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Start of [`Store::wait_prefix`] for the same prefix.
    pub cursor: Cursor,
}

/// The end of a wait: something may have changed, or the time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// Start of the next wait.
    pub cursor: Cursor,
    /// The state, if the store sent it along. It is no older than `cursor`, but may be a little
    /// older than the store's latest. `None` says nothing about the state: read it.
    pub state: Option<T>,
}

/// A place where nodes agree. Every call has a deadline of its own and never hangs.
///
/// The contract of each verb stands in the documentation of the [module](self).
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// State of `key` at some moment during the call.
    async fn get(&self, key: &str) -> Result<Lookup, StoreError>;

    /// All entries whose keys begin with `prefix`, as they were at one moment during the call. The
    /// prefix is empty or ends with `/`.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Waits until `key` may have changed since `cursor`, for about `wait` at most.
    async fn wait_key(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Option<Entry>>, StoreError>;

    /// Waits until a key under `prefix` may have changed since `cursor`, for about `wait` at most.
    async fn wait_prefix(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Vec<Entry>>, StoreError>;

    /// For stores: carries out all of `ops` or none. Callers use [`Store::transact`], which has
    /// checked `ops` with [`txn::validate`].
    async fn commit(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError>;

    /// Carries out all of `ops` or none. Each key occurs once, and the limits are
    /// [`MAX_OPS`](crate::MAX_OPS) and [`MAX_BYTES`](crate::MAX_BYTES), whatever the store.
    async fn transact(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        txn::validate(&self.describe(), ops)?;
        self.commit(ops).await
    }

    /// Writes `key` if it is in the expected state, and returns whether it was.
    async fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        value: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let ops = [Op::Write { key: key.to_owned(), expected, value }];
        Ok(self.transact(&ops).await? == TxnOutcome::Committed)
    }

    /// Starts a lease, which ends unless it is renewed within `ttl` each time. `name` is for people
    /// who look into the store. Some stores let it live up to twice as long, and refuse less than
    /// ten seconds.
    async fn grant_lease(&self, name: &str, ttl: Duration) -> Result<Lease, StoreError>;

    /// Renews a lease; `false` if it has ended.
    async fn renew_lease(&self, lease: &Lease) -> Result<bool, StoreError>;

    /// Ends a lease and deletes its keys. A lease that has ended already is no error.
    async fn revoke_lease(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Writes `key`, whatever is there, and binds it to `lease`, whatever it was bound to: the key
    /// is deleted when this lease ends. `false`, and nothing written, if the lease has ended.
    async fn put_leased(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: &Lease,
    ) -> Result<bool, StoreError>;

    /// Succeeds if the store could take a write now. Answers within a second.
    async fn check(&self) -> Result<(), StoreError>;

    /// Kind and address of the store, for people: `Consul at http://127.0.0.1:8500`.
    fn describe(&self) -> String;

    /// Returns whether the store serves this one node only.
    fn is_single_node(&self) -> bool;

    /// Waits as [`Store::wait_key`] does, and returns the state: the one that the store sent along,
    /// or else a fresh one.
    async fn next_lookup(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Lookup, StoreError> {
        let change = self.wait_key(key, cursor, wait).await?;
        match change.state {
            Some(entry) => Ok(Lookup { entry, cursor: change.cursor }),
            None => self.get(key).await,
        }
    }

    /// Waits as [`Store::wait_prefix`] does, and returns the state: the one that the store sent
    /// along, or else a fresh one.
    async fn next_listing(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Listing, StoreError> {
        let change = self.wait_prefix(prefix, cursor, wait).await?;
        match change.state {
            Some(entries) => Ok(Listing { entries, cursor: change.cursor }),
            None => self.list(prefix).await,
        }
    }
}
