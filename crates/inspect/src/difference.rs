//! Kinds of differences between cluster store, ledger and kernel.
//!
//! Store and files are never read at one moment, so a single reading can show a difference that is
//! only a change under way. Callers that report differences read twice; see
//! [`Difference::is_again`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_ledger::ledger::Away;
use weft_ledger::{Holder, Reservation};
use weft_model::{Block, Network, NetworkName};

/// Kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The node has a network that the store does not know.
    NetworkGone,
    /// The store gives this node a block that the ledger lacks.
    BlockNotEntered,
    /// The ledger has a block that the store does not give to this node.
    BlockNotOwned,
    /// A file of the ledger cannot be read.
    DamagedFile,
    /// A reservation cannot be read.
    DamagedReservation,
    /// A reservation's container is gone.
    SandboxGone,
    /// A reservation's sandbox lacks the interface that the address is for.
    Unwired,
    /// No process is in the sandbox of a reservation.
    Deserted,
    /// An address is used by a container that has no reservation of it.
    Unreserved,
    /// A container is not connected to the network's bridge.
    Disconnected,
    /// An address is in use here and belongs to another node.
    Stranded,
    /// Two reservations hold one address.
    HeldTwice,
    /// A borrowed address of whose loan the store knows nothing.
    LoanUnknown,
    /// The store lists an address as being here, and no reservation is of it.
    EndpointUnused,
    /// An address of an own block lives on another node, and is not set aside.
    NotSetAside,
    /// An address is set aside for another node, and does not live there.
    #[serde(rename = "lentToNobody")]
    LentWithoutBorrower,
    /// The index counts other addresses as held than there are reservations.
    Index,
    /// The network's devices are not as they were made.
    Devices,
    /// The host is without an address of its own.
    HostAddress,
}

/// Cure of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Nothing that can be done without an administrator's judgement.
    None,
    /// Read the network's definition from the cluster store again.
    Define,
    /// Enter the block.
    Adopt(Block),
    /// Take the unowned blocks again, strike out those that other nodes own.
    Verify,
    /// Release this very reservation.
    Release(Box<Reservation>),
    /// Release this very reservation, if its sandbox still lacks the interface.
    ReleaseUnwired(Box<Reservation>),
    /// Release the damaged reservation of this holder.
    Discard(Holder),
    /// Give back the borrowed addresses that are free.
    Tidy,
    /// Take back the lent addresses that no node has.
    Reclaim,
    /// Set the address aside.
    SetAside(Block, Away),
    /// Make the index again.
    Reindex,
    /// Make the devices again.
    Repair,
}

/// One difference between what should be and what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The network.
    pub network: NetworkName,
    /// Its kind.
    pub kind: Kind,
    /// The addresses that it is about; empty if it is not about single ones.
    pub addresses: Vec<IpAddr>,
    /// The difference, in words.
    pub what: String,
    /// The remedy, in words.
    pub remedy: String,
    /// True if all may be as it should.
    pub is_note: bool,
    /// The cure that `--fix` carries out.
    #[serde(skip)]
    pub fix: Fix,
}

impl Difference {
    /// A difference that is about no single addresses, and that nothing but an administrator cures.
    pub(crate) fn new(
        network: &Network,
        kind: Kind,
        what: String,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            network: network.name().clone(),
            kind,
            addresses: vec![],
            what,
            remedy: remedy.into(),
            is_note: false,
            fix: Fix::None,
        }
    }

    /// Returns whether `other`, from another pass, is about the same.
    pub fn is_again(&self, other: &Self) -> bool {
        let about = |d: &Self| (d.network.clone(), d.kind, d.addresses.clone(), d.what.clone());
        about(self) == about(other)
    }
}
