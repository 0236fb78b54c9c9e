//! A network on this host: where what the cluster says ([`weft_cluster`]) becomes what the kernel has
//! ([`weft_datapath`]).
//!
//! Plugin, agent and command line all come here, so that a bridge that the plugin made and one that
//! the agent repaired are the same bridge.
//!
//! - [`attach`], [`detach`]: connect a container and take it off again.
//! - [`setup`]: makes, adopts and repairs the network's devices and firewall rules.
//! - [`network_removal`]: takes them away again.
//! - [`state`]: what was made, noted for the plugin's hot path.
//! - [`undo`]: what a failed attempt takes back.
//! - [`peer_table`]: which remote addresses the kernel must know.

pub mod attach;
pub mod detach;
mod error;
pub mod network_removal;
pub mod peer_table;
pub mod setup;
pub mod state;
pub mod undo;
mod vteps;

pub use error::WiringError;
pub use setup::Host;
pub use state::SegmentState;
