//! One node's part in the cluster.
//!
//! This is where the node's own ledger ([`weft_blocks`]) meets the cluster store ([`weft_store`]):
//! what the plugins, the agent and the command line all do in the same way.
//!
//! - [`config`]: the node's configuration file.
//! - [`identity`]: which machine this is.
//! - [`cluster`]: the connected store, and this node's record in it.
//! - [`lock`]: locks between the processes of a node.
//! - [`networks`]: definitions of networks, in the store and cached on the node.
//! - [`agent`]: whether the node's agent runs.
//! - [`addresses`]: an address for a holder: from the ledger, after a claim, or borrowed.
//! - [`claims`]: blocks, claimed, adopted, given back, lost.
//! - [`loans`], [`lending`]: the borrower's and the lender's part of a loan.
//! - [`stickies`]: the same address for the same identity.
//! - [`steward`]: what the agent does about blocks and loans.
//! - [`nodes`]: removing a node.
//! - [`inspect`]: what is in use, and where store and node differ.
//! - [`sandboxes`]: whether a container is still there.
//! - [`surroundings`]: time and chance.

pub mod addresses;
pub mod agent;
pub mod claims;
pub mod cluster;
pub mod config;
mod error;
pub mod identity;
pub mod inspect;
pub mod lending;
pub mod loans;
pub mod lock;
pub mod networks;
pub mod nodes;
mod presence;
pub mod sandboxes;
pub mod steward;
pub mod stickies;
pub mod surroundings;

pub use cluster::Cluster;
pub use config::NodeConfig;
pub use error::NodeError;
pub use surroundings::Surroundings;
