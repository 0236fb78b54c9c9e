//! Deterministic simulation of the block and loan protocol.
//!
//! What runs on the simulated nodes is the code of agent and plugins: claims, loans, the block
//! manager, the ledger with its files. Simulated are the cluster store, time and chance. One
//! number, the seed, decides everything, so a run that fails can be repeated exactly.
//!
//! At each step one thing happens, anywhere in the cluster: a call reaches the store or is lost, an
//! answer arrives or is lost, a timer rings, a container comes or goes, a program is killed, a
//! machine reboots, a node is cut off, or is removed by an administrator. After each step no
//! address may be held twice, and no node may use a block that is not its own. At the end all goes
//! back to normal, and no address may be lost.

mod machine;
mod oracle;
mod run;
mod server;
mod settle;
mod trouble;
mod world;

pub use run::{Options, Report, run};
pub use server::Sabotage;
