//! GC: reservations of this network on this node whose attachment the runtime no longer knows are
//! freed, if their sandbox is gone too.
//!
//! The second condition is there because several runtimes may share a node and its networks, and
//! each of them knows only its own containers.

use log::info;
use weft_allocator::liveness::Living;
use weft_cni::{CniError, Request, ValidAttachments};
use weft_ledger::{Holder, Reservation};

use crate::request::Call;

/// Frees what nobody uses.
pub fn gc(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    let valid = match request.valid_attachments()? {
        // An old runtime that names nothing knows nothing: not even that all is to go.
        ValidAttachments::Absent => return Ok(()),
        ValidAttachments::Listed(valid) => valid,
    };
    let Some(network) = call.cached()? else { return Ok(()) };
    let ledger = call.ledger(network)?;
    let failed = |error: weft_ledger::FileError| call.error("collect", error);
    let mut first_error = None;
    let reservations = ledger.reservations().map_err(failed)?;
    let living = Living::look(reservations.iter().filter_map(|held| held.sandbox.as_ref()));
    for reservation in reservations {
        let Holder::Attachment { container_id, ifname } = &reservation.holder else { continue };
        let known = valid
            .iter()
            .any(|a| a.container_id == container_id.as_str() && a.ifname == ifname.as_str());
        if known || sandbox_lives(&reservation, &living) {
            continue;
        }
        info!("freeing {} of {}", reservation.addresses[0], reservation.holder);
        if let Err(error) = ledger.release(&reservation.holder) {
            first_error.get_or_insert(failed(error));
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Whether the network namespace that the reservation was made for is known to be there still. Unlike
/// the agent's sweep this has the runtime's word that the attachment is gone, so in doubt it is.
fn sandbox_lives(reservation: &Reservation, living: &Living) -> bool {
    let known = reservation.sandbox.as_ref().filter(|sandbox| sandbox.identity.is_some());
    known.is_some_and(|sandbox| living.has(sandbox))
}
