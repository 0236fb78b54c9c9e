//! Addresses for containers that do not exist yet.
//!
//! A program that learns of a container's address before it makes the container's interface
//! prepares the address under an id of its own choice, renews the lease, and settles it when the
//! attachment is there. Until then neither a runtime's GC nor the sweep touches it, for it belongs
//! to no container; once the lease is over it is freed. Each step may be repeated and may be cut
//! short: the address has one holder at any time, or is free.

use std::path::Path;

use weft_cluster::networks;
use weft_ledger::ledger::Settled;
use weft_ledger::{Holder, Ledger, Sandbox};
use weft_model::{Attachment, Network, NetworkName, PreparedId};

use crate::AllocatorError;
use crate::address::AddressGrant;
use crate::release::{Reason, free};

/// The holder that stands for `id` until `expires`, in seconds since 1970.
///
/// [`acquire`](crate::address::acquire) for this holder prepares an address: the same id gets the
/// same address and the new lease.
pub fn holder(id: &PreparedId, expires: u64) -> Holder {
    Holder::Prepared { id: id.clone(), expires }
}

/// Extends the lease of `id` to `expires`, in seconds since 1970. One that is over is not extended:
/// the address may have been given to another container.
pub fn renew(
    data_dir: &Path,
    network: &NetworkName,
    id: &PreparedId,
    expires: u64,
) -> Result<AddressGrant, AllocatorError> {
    let (network, ledger) = open(data_dir, network, id)?;
    match ledger.renew_prepared(id, expires)? {
        Some(reservation) => Ok(AddressGrant::new(network, reservation)),
        None => {
            Err(AllocatorError::NotPrepared { id: id.clone(), network: network.name().clone() })
        }
    }
}

/// Hands the address that was prepared under `id` to `attachment`, which is in `sandbox`. Asked
/// again, it says the same.
pub fn settle(
    data_dir: &Path,
    id: &PreparedId,
    attachment: &Attachment,
    sandbox: Option<&Sandbox>,
) -> Result<AddressGrant, AllocatorError> {
    let (network, ledger) = open(data_dir, &attachment.network, id)?;
    let name = network.name().clone();
    match ledger.settle(id, &attachment.into(), sandbox)? {
        Settled::Done(reservation) => Ok(AddressGrant::new(network, reservation)),
        Settled::Missing => Err(AllocatorError::NotPrepared { id: id.clone(), network: name }),
        Settled::Expired(reservation) => Err(AllocatorError::LeaseOver {
            id: id.clone(),
            address: reservation.shown(),
            network: name,
        }),
        Settled::Occupied(held) => Err(AllocatorError::Occupied {
            id: id.clone(),
            held: held.shown(),
            holder: Box::new(held.holder),
            network: name,
        }),
    }
}

/// Frees the address that was prepared under `id`, and returns whether there was one. One that was
/// settled is its attachment's and stays.
pub fn release(
    data_dir: &Path,
    network: &NetworkName,
    id: &PreparedId,
) -> Result<bool, AllocatorError> {
    let Some(network) = networks::cached(data_dir, network)? else { return Ok(false) };
    let ledger = Ledger::open(data_dir, network)?;
    // A lease that is renewed between the two looks makes it another reservation.
    while let Some(prepared) = ledger.prepared(id)? {
        if free(&ledger, &prepared, Reason::Unneeded)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open(
    data_dir: &Path,
    network: &NetworkName,
    id: &PreparedId,
) -> Result<(Network, Ledger), AllocatorError> {
    let Some(definition) = networks::cached(data_dir, network)? else {
        return Err(AllocatorError::NotPrepared { id: id.clone(), network: network.clone() });
    };
    let ledger = Ledger::open(data_dir, definition.clone())?;
    Ok((definition, ledger))
}

#[cfg(test)]
mod tests;
