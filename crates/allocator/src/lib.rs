//! Addresses: how a node comes to own blocks of them, and who gets which.
//!
//! This is where the node's ledger ([`weft_ledger`]) meets the cluster store: the same code for
//! plugins, agent and command line, with no CNI type and no link among its types.
//!
//! - [`address`]: an address on request, for plugins and drivers.
//! - [`prepared`]: an address for a container that does not exist yet.
//! - [`release`]: addresses given back, each with a reason.
//! - [`acquire`]: an address for a holder: from the ledger, after a claim, or borrowed.
//! - [`claim`]: the protocol by which a node comes to own a block, as a pure state machine.
//! - [`ownership`]: blocks, claimed, adopted, given back, lost.
//! - [`borrowing`], [`lending`]: the borrower's and the lender's part of a loan.
//! - [`sticky`]: the same address for the same identity.
//! - [`block_manager`]: the agent's rounds over blocks and loans.
//! - [`liveness`]: whether a container is still there.

pub mod acquire;
pub mod address;
pub mod block_manager;
pub mod borrowing;
pub mod claim;
mod error;
pub mod lending;
pub mod liveness;
pub mod ownership;
pub mod prepared;
pub mod release;
pub mod sticky;

pub use address::{AddressGrant, AddressRequest};
pub use error::AllocatorError;
