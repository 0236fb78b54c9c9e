//! A network on this host: where what the cluster says ([`weft_cluster`]) becomes what the kernel
//! has ([`weft_datapath`]).
//!
//! Plugin, agent and command line all come here, so that a bridge that the plugin made and one that
//! the agent repaired are the same bridge.
//!
//! - [`host`]: the host itself: configuration, cluster, kernel, underlay, locks.
//! - `ensure`: makes a network on this host; `node_address`: the host's own address in it;
//!   `segment_spec`: the devices that it is to have.
//! - `repair`: puts back what was lost; `rejoin`: ports of the bridge.
//! - [`segment_state`]: what was made, noted for the plugin's hot path.
//! - [`peer_table`]: the remote addresses that the kernel must know; `program_peers`: programs
//!   them.
//! - [`attach`], [`detach`]: connect a container and take it off again.
//! - [`call_lock`]: the lock of an attachment; [`collect`]: what killed calls and runtimes left.
//! - [`attachment_check`]: an attachment compared with what it should be.
//! - [`network_removal`]: takes a network away again; `host_ends`: the containers that are in it.
//!
//! No module uses one that uses it.

pub mod attach;
pub mod attachment_check;
pub mod call_lock;
pub mod collect;
pub mod detach;
mod ensure;
mod error;
pub mod host;
mod host_ends;
pub mod network_removal;
mod node_address;
pub mod peer_table;
mod program_peers;
mod rejoin;
mod repair;
mod segment_spec;
pub mod segment_state;

pub use call_lock::CallLock;
pub use error::{Obstacle, WiringError};
pub use host::{Host, selector};
pub use node_address::OwnAddress;
pub use segment_state::SegmentState;
