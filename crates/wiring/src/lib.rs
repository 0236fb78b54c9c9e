//! A network on this host: where what the cluster says ([`weft_cluster`]) becomes what the kernel has
//! ([`weft_datapath`]).
//!
//! Plugin, agent and command line all come here, so that a bridge that the plugin made and one that
//! the agent repaired are the same bridge.
//!
//! - [`setup`]: makes, adopts and repairs the network's devices and firewall rules.
//! - [`network_removal`]: takes them away again.
//! - [`state`]: what was made, noted for the plugin's hot path.
//! - [`peer_table`]: which remote addresses the kernel must know.

mod error;
pub mod network_removal;
pub mod peer_table;
pub mod setup;
pub mod state;
mod vteps;

pub use error::WiringError;
pub use setup::Host;
pub use state::SegmentState;
