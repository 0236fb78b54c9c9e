//! The cluster store: the place where nodes agree.
//!
//! [`Store`] has the verbs that agreement takes: reads with a revision, transactions, waiting for
//! changes of a key or a prefix, and leases that end unless they are renewed. Consul
//! ([`ConsulStore`]) and the embedded store of a single node ([`LocalStore`]) implement it. Nothing
//! of Consul's API shows through; the documentation of [`store`] maps each verb to etcd and
//! ZooKeeper.
//!
//! - [`config`]: the `[store]` section of `weft.toml`, and opening the store that it names.
//! - [`keys`]: the layout of all keys, in one place.
//! - [`store`]: the trait and its values.
//! - [`txn`]: operations of a transaction, and the limits that all stores share.
//! - [`typed`]: records to values and back.
//! - [`backoff`]: delays between retries.
//!
//! Keys are relative to the prefix that a store was opened with. Values are bytes; weft's are JSON,
//! legible in the store's own tools.

pub mod backoff;
pub mod config;
mod consul;
mod error;
pub mod keys;
mod local;
pub mod store;
pub mod txn;
pub mod typed;

pub use backoff::Backoff;
pub use config::{ConsulConfig, StoreConfig, StoreSection, open};
pub use consul::{ConsulOptions, ConsulStore};
pub use error::StoreError;
pub use local::LocalStore;
pub use store::{Change, Cursor, Entry, Lease, Listing, Lookup, Revision, Store};
pub use txn::{Expected, MAX_BYTES, MAX_OPS, Op, TxnOutcome};
