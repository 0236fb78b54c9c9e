//! The ledger of a node: which holder has which address of the blocks that the node owns.
//!
//! It lives in plain files under the node's data directory, so that short-lived plugin processes
//! share it, and knows nothing of the cluster.
//!
//! - [`ledger`]: reserving, releasing, lending, keeping, preparing.
//! - [`holder`]: holders of addresses, and their files' names.
//! - [`reservation`]: the content of those files.
//! - [`layout`]: the paths of all these files.
//!
//! # Files of a network
//!
//! ```text
//! <data_dir>/networks/<network>/
//!   network.json                   definition, as last read from the cluster store
//!   segment.json                   data plane of this node as it was last made
//!   segment.lock                   held by the process that makes or removes the devices
//!   claim.lock                     held by the process that claims a block
//!   lock                           held for microseconds by the process that changes what follows
//!   blocks/<block>                 this node owns the block; its first slot in the index
//!   reservations/<container>@<if>  an attachment holds an address: the truth, JSON
//!   reservations/@node             the node's own address
//!   reservations/@lent-<place>     the address lives on another node
//!   reservations/@kept-<id>        the address is kept for an identity
//!   reservations/@prepared-<id>    the address is reserved for a container to come
//!   loans/<loan>                   names the reservation that holds a borrowed address
//!   returns/<loan>                 released here; the lender does not know yet
//!   borrowing/<loan>               held by the process that borrows; names the lender
//!   stranded/<block>, <loan>       lost, or needs a check: reservations may have outlived it
//!   index                          which addresses are free, oldest first: derived
//! ```
//!
//! A reservation exists from the moment its file is renamed into place to the moment the file is
//! unlinked: one atomic step each, so a process may be killed between any two instructions and the
//! address is either held or free. The `index` only makes the next free address quick to find. It
//! is marked dirty while it and the reservations disagree, and the next process that finds it
//! dirty rebuilds it.

mod clock;
pub mod holder;
mod index;
pub mod layout;
pub mod ledger;
pub mod reservation;

pub use holder::{Holder, HolderKey};
pub use ledger::Ledger;
pub use reservation::{Reservation, Sandbox};
pub use weft_files::FileError;
