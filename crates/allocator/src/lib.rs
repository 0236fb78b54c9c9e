//! Addresses: blocks for a node, and addresses of the blocks for its containers.
//!
//! This is where the node's ledger ([`weft_ledger`]) meets the cluster store: the same code for
//! plugins, agent and command line, with no CNI type and no link among its types.
//!
//! - [`address`]: an address on request, for plugins and drivers.
//! - [`prepared`]: an address for a container that does not exist yet.
//! - [`release`]: addresses given back, each with a reason.
//! - [`sticky`]: the address that the holder's identity had before.
//! - [`acquire`]: an address for a holder: from the ledger, after a claim, or borrowed.
//! - [`borrowing`], [`returns`]: the borrower's part of a loan, from its beginning to its end.
//! - [`lending`]: the lender's part of a loan.
//! - [`ownership`]: blocks, claimed, adopted, given back, lost.
//! - [`undo`]: the address of a new identity, taken back after an ADD that failed.
//! - [`identities`]: the addresses of identities in the cluster store, and their end.
//! - [`claim`]: the protocol by which a node comes to own a block, as a pure state machine.
//! - [`recovery`]: what an emptied store has lost, written back.
//! - [`block_manager`]: the agent's rounds over blocks and loans of a network.
//! - [`draining`]: what a drained node gives back beside idle blocks.
//! - [`moving`]: a block that its owner hands over to another node.
//! - [`liveness`]: whether a container is still there.
//!
//! # Layers
//!
//! A module uses only those below it, so each can be read on its own:
//!
//! ```text
//! prepared, undo
//! address                block_manager, draining
//! sticky
//! acquire, recovery      lending, moving
//! returns
//! borrowing, ownership
//! identities
//! claim, release, error
//! ```
//!
//! Every address is freed through [`release`], with a reason that is logged.

pub mod acquire;
pub mod address;
pub mod block_manager;
pub mod borrowing;
pub mod claim;
pub mod draining;
mod error;
pub mod identities;
pub mod lending;
pub mod liveness;
pub mod moving;
pub mod ownership;
pub mod prepared;
pub mod recovery;
pub mod release;
pub mod returns;
pub mod sticky;
pub mod undo;

pub use address::{AddressGrant, AddressRequest};
pub use error::AllocatorError;
