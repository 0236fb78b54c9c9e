//! Giving addresses back, always with a reason.
//!
//! A reservation that was looked at and judged is freed only if it is still the very same: its
//! holder may have got another one since. A DEL is the exception: it names the holder, and
//! whatever that holds then is to go.

use std::fmt;
use std::path::Path;

use log::info;
use weft_cluster::networks;
use weft_ledger::{FileError, Holder, Ledger, Reservation, ledger};
use weft_model::NetworkName;

use crate::AllocatorError;

/// The reason why an address is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The runtime deleted the attachment.
    Deleted,
    /// The runtime's GC does not list the attachment, and its sandbox is gone.
    Unlisted,
    /// The agent's sweep found the sandbox gone without a DEL.
    Swept,
    /// The sandbox lives and lacks the interface: the call that reserved the address was killed.
    Unwired,
    /// The runtime's GC does not list the attachment, and no process is in its sandbox.
    Deserted,
    /// The time is over for which the address was kept or reserved.
    Expired,
    /// A person released the address.
    Operator,
    /// The address or its block belongs to another node.
    Superseded,
    /// The borrower gave the address back, or its request ended without a loan.
    Returned,
    /// The program that prepared the address has no use for it.
    Unneeded,
}

impl Reason {
    /// The reason in one word, for log fields and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Unlisted => "gc",
            Self::Swept => "sweep",
            Self::Unwired => "unwired",
            Self::Deserted => "deserted",
            Self::Expired => "expired",
            Self::Operator => "operator",
            Self::Superseded => "superseded",
            Self::Returned => "returned",
            Self::Unneeded => "unneeded",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "the runtime deleted it",
            Self::Unlisted => "the runtime does not list it, and its sandbox is gone",
            Self::Swept => "its sandbox is gone without a DEL",
            Self::Unwired => "its sandbox has no interface with it",
            Self::Deserted => "the runtime does not list it, and its sandbox has no process",
            Self::Expired => "its time is over",
            Self::Operator => "released by hand",
            Self::Superseded => "the address belongs to another node",
            Self::Returned => "no other node borrows it any more",
            Self::Unneeded => "it is not needed",
        })
    }
}

/// Frees this very reservation, and returns whether it was still there.
pub fn free(ledger: &Ledger, held: &Reservation, reason: Reason) -> Result<bool, FileError> {
    let freed = ledger.release_exactly(held)?;
    if freed {
        log(ledger.network().name(), held, reason);
    }
    Ok(freed)
}

/// Frees what `holder` has by a reservation that cannot be read, and returns whether there was one:
/// the attachment may have been made again since it was looked at.
pub fn discard(ledger: &Ledger, holder: &Holder, reason: Reason) -> Result<bool, FileError> {
    let freed = ledger.release_damaged(holder)?;
    if freed {
        let network = ledger.network().name();
        info!(
            "network {network}: freed what a damaged reservation of {holder} held: {reason}; \
             reason={}",
            reason.as_str()
        );
    }
    Ok(freed)
}

/// Frees all that is `expired` of the ledger's network, and returns what was.
pub fn free_expired(ledger: &Ledger) -> Result<Vec<Reservation>, FileError> {
    let mut freed = vec![];
    for reservation in ledger.expired()? {
        if free(ledger, &reservation, Reason::Expired)? {
            freed.push(reservation);
        }
    }
    Ok(freed)
}

/// Frees what `holder` holds in `network` on this node, and returns it. Nothing held is no error,
/// nor that the network, its definition or the cluster store is gone.
pub fn release(
    data_dir: &Path,
    network: &NetworkName,
    holder: &Holder,
    reason: Reason,
) -> Result<Option<Reservation>, AllocatorError> {
    let released = match networks::cached(data_dir, network)? {
        Some(definition) => Ledger::open_to_free(data_dir, definition).release(holder)?,
        None => ledger::forget(data_dir, network, holder)?,
    };
    if let Some(held) = &released {
        log(network, held, reason);
    }
    Ok(released)
}

fn log(network: &NetworkName, held: &Reservation, reason: Reason) {
    info!(
        "network {network}: freed {} of {}: {reason}; reason={}",
        held.shown(),
        held.holder,
        reason.as_str()
    );
}
