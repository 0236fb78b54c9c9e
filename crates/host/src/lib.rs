//! A network on this host: where what the cluster says ([`weft_node`]) becomes what the kernel has
//! ([`weft_datapath`]).
//!
//! Plugin, agent and command line all come here, so that a bridge that the plugin made and one that
//! the agent repaired are the same bridge.
//!
//! - [`setup`]: makes, adopts and repairs the network's devices and firewall rules.
//! - [`removal`]: takes them away again.
//! - [`state`]: what was made, noted for the plugin's hot path.
//! - [`inspect`]: in what store, files and kernel differ, and which containers are alive.
//! - [`peers`]: which remote addresses the kernel must know.

mod error;
pub mod inspect;
mod node;
pub mod peers;
pub mod removal;
pub mod setup;
pub mod state;

pub use error::HostError;
pub use setup::Host;
pub use state::SegmentState;
