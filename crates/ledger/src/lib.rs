//! Blocks and the addresses in them, as one node sees them.
//!
//! Two halves that never meet in one function:
//!
//! - [`claim`] is the protocol by which a node comes to own a block: a pure state machine that is
//!   told what the cluster store answered and says what to ask next. Programs drive it with a real
//!   store, the simulator with an invented one.
//! - [`ledger`] is the node's own book of who holds which address of the blocks that it owns. It
//!   lives in plain files under the node's data directory, so that short-lived plugin processes
//!   share it, and knows nothing of the cluster.
//!
//! # Files of a network
//!
//! ```text
//! <data_dir>/networks/<network>/
//!   network.json                     the definition, as last read from the cluster store
//!   lock                             locked for microseconds by whoever changes what is below
//!   claim.lock                       held by the one process that is claiming a block
//!   blocks/<block>                   this node owns the block
//!   reservations/<container>@<if>    this attachment holds an address: the truth, JSON
//!   reservations/@node               the node's own address
//!   reservations/@lent-<place>       the address lives on another node
//!   reservations/@kept-<id>          the address is kept for an identity
//!   reservations/@prepared-<id>      the address is reserved for a container to come
//!   index                            which addresses are free, oldest first: derived
//! ```
//!
//! A reservation exists from the moment its file is renamed into place to the moment the file is
//! unlinked: one atomic step each, so a process may be killed between any two instructions and the
//! address is either held or free. The `index` only makes the next free address quick to find. It
//! is marked dirty while it and the reservations disagree, and whoever finds it so rebuilds it.

pub mod holder;
mod index;
pub mod layout;
pub mod ledger;
pub mod reservation;

pub use holder::{Holder, HolderKey};
pub use ledger::Ledger;
pub use reservation::{Reservation, Sandbox};
pub use weft_files::FileError;
