//! Differences between cluster store, ledger and kernel, and their cures.
//!
//! - [`difference`]: kinds of differences, and what puts each right.
//! - [`records`]: what files and store have of a network.
//! - `compare`: store and ledger compared, as a pure function.
//! - `containers`: evidence about the containers of a network.
//! - `cures`: differences of files and store, put right.
//! - [`check`]: store, ledger and kernel of this node, compared twice and put right.
//! - [`usage`]: how much of each network is in use.
//! - [`release`]: freeing an address by hand.

pub mod check;
mod compare;
mod containers;
mod cures;
pub mod difference;
pub mod records;
pub mod release;
#[cfg(test)]
mod tests;
pub mod usage;

pub use check::{Checked, Fixing};
pub use difference::{Difference, Fix, Kind};
pub use records::{Damaged, Files, Records};

pub use release::{Force, ReleaseError, Released};
pub use weft_allocator::liveness::Life;
