//! The cluster store: where nodes agree.
//!
//! [`Store`] has the few verbs that agreement takes: read with a revision, compare-and-set,
//! transactions, watching a prefix, and sessions that end when their holder stops renewing them.
//! Consul ([`ConsulStore`]) and the embedded store of a single node ([`LocalStore`]) stand behind it.
//! Nothing of Consul's shows through, so that other stores can follow.
//!
//! - [`keys`]: the layout of all keys, in one place.
//! - [`typed`]: records in and out of values.
//! - [`backoff`]: how long to wait before trying again.
//!
//! Keys are relative to the prefix that a store was opened with. Values are bytes; weft's are JSON,
//! legible in the store's own tools.

pub mod backoff;
mod consul;
mod error;
pub mod keys;
mod local;
pub mod typed;

use std::fmt;
use std::time::Duration;

pub use backoff::Backoff;
pub use consul::{ConsulOptions, ConsulStore};
pub use error::StoreError;
pub use local::LocalStore;

/// The most operations that one transaction takes: what Consul allows.
pub const MAX_OPS: usize = 64;

/// When a key was last written. Only equality means anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(u64);

/// From where on a watch is to report. Belongs to the listing that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(u64);

/// A session: the sign of life of whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl Revision {
    /// For stores: the revision with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

impl Cursor {
    /// For stores: the cursor with this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

impl From<String> for SessionId {
    /// For stores: the session with this id.
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for SessionId {
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
    /// When it was last written.
    pub revision: Revision,
    /// The live session that holds the key.
    pub holder: Option<SessionId>,
}

/// All entries under a prefix at one moment, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where a watch goes on.
    pub cursor: Cursor,
}

/// What a key must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It does not exist.
    Absent,
    /// It exists and was last written at this revision.
    Revision(Revision),
}

/// A part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes the key, whatever it held.
    Set {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Writes the key if it is as expected.
    Write {
        /// The key.
        key: String,
        /// What it must be like.
        expected: Expected,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes the key. That it does not exist is no conflict.
    Delete {
        /// The key.
        key: String,
    },
    /// Removes the key if it was last written at this revision.
    DeleteIf {
        /// The key.
        key: String,
        /// The revision.
        revision: Revision,
    },
    /// Changes nothing, but fails the transaction if the key is not as expected.
    Check {
        /// The key.
        key: String,
        /// What it must be like.
        expected: Expected,
    },
}

impl Op {
    /// Writes a key that must not exist.
    pub fn create(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self::Write { key: key.into(), expected: Expected::Absent, value }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Requires a key to be as expected.
    pub fn check(key: impl Into<String>, expected: Expected) -> Self {
        Self::Check { key: key.into(), expected }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// All of it happened.
    Committed,
    /// None of it happened.
    Conflict {
        /// Which operation was in the way, by its place.
        op: usize,
        /// Why, in the store's words.
        what: String,
    },
}

/// A place where nodes agree. Every call has a deadline of its own and never hangs.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// The entry of `key`, if it exists, as it was at some moment during the call.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose keys begin with `prefix`, as they were at one moment during the call.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Like [`Store::list`], but waits until the answer may differ from the listing that `cursor`
    /// came with, for about `wait` at most. What it returns may be no different, and a little out
    /// of date.
    async fn watch(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Listing, StoreError>;

    /// Writes `key` if it is as expected, and says whether it was.
    async fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        value: Vec<u8>,
    ) -> Result<bool, StoreError>;

    /// Does all of `ops` or none, [`MAX_OPS`] at most.
    async fn transact(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError>;

    /// Starts a session that ends unless it is renewed within `ttl` each time. Some stores give a
    /// little more time, and have a least `ttl` of ten seconds.
    async fn create_session(&self, name: &str, ttl: Duration) -> Result<SessionId, StoreError>;

    /// Renews a session; `false` if it has ended.
    async fn renew_session(&self, session: &SessionId) -> Result<bool, StoreError>;

    /// Ends a session. That it has ended already is no error.
    async fn destroy_session(&self, session: &SessionId) -> Result<(), StoreError>;

    /// Writes `key` and holds it with `session`; `false`, and nothing written, if another live
    /// session holds it. When the session ends the key stays, held by nobody.
    async fn acquire(
        &self,
        key: &str,
        value: Vec<u8>,
        session: &SessionId,
    ) -> Result<bool, StoreError>;

    /// Whether the store could take a write now. Answers within a second.
    async fn check(&self) -> Result<(), StoreError>;

    /// What and where the store is, for people: `Consul at http://127.0.0.1:8500`.
    fn describe(&self) -> String;

    /// Whether the store serves this one node only.
    fn is_single_node(&self) -> bool;
}
