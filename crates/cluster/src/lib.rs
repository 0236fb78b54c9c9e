//! The node as a member of its cluster: its configuration, its record, and its view of the cluster
//! store.
//!
//! - [`config`]: the node's configuration file.
//! - [`identity`]: the identity of the machine.
//! - [`cluster`]: the connected store, and reads of it.
//! - `node_name`: the name of the node, noted among its files.
//! - [`registration`]: this node's record and its lease.
//! - [`node_removal`]: removing a node.
//! - [`store_identity`]: whether the store is the one that this node knows.
//! - [`view`]: contents of the store, put together by one read.
//! - [`watcher`]: the same, kept current by watches.
//! - [`networks`]: definitions of networks, in the store and cached on the node.
//! - [`catalogue`]: all networks in the store.
//! - [`agent`]: whether the node's agent runs.
//! - [`draining`]: nodes that are to get no new addresses.
//! - [`usage`]: what nodes report of the use of their blocks.
//! - [`environment`]: clock, timers and random numbers, real or simulated.

pub mod agent;
pub mod catalogue;
pub mod cluster;
pub mod config;
pub mod draining;
pub mod environment;
mod error;
pub mod identity;
pub mod networks;
mod node_name;
pub mod node_removal;
pub mod registration;
pub mod store_identity;
pub mod usage;
pub mod view;
pub mod watcher;

pub use cluster::Cluster;
pub use config::NodeConfig;
pub use environment::Environment;
pub use error::ClusterError;
pub use view::{Member, Members, NetworkView, Stored};
pub use watcher::Watcher;
