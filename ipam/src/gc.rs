//! GC: reservations of this network on this node whose attachment the runtime no longer knows are
//! freed, if their sandbox is gone too.
//!
//! The second condition is there because several runtimes may share a node and its networks, and
//! each of them knows only its own containers.

use weft_allocator::liveness::{Evidence, Life, Living, Runtime};
use weft_allocator::release::{Reason, free};
use weft_cni::{CniError, Request, ValidAttachments};
use weft_ledger::{Holder, Ledger};

use crate::request::Call;

/// Frees the addresses of containers that are gone.
pub fn gc(request: &Request, call: &Call) -> Result<(), CniError> {
    let valid = match request.valid_attachments()? {
        // An old runtime that names nothing knows nothing: not even that all is to go.
        ValidAttachments::Absent => return Ok(()),
        ValidAttachments::Listed(valid) => valid,
    };
    let Some(network) = call.cached()? else { return Ok(()) };
    let ledger = Ledger::open_to_free(&call.node.data_dir, network);
    let failed = |error: weft_ledger::FileError| call.error("collect", error);
    let mut first_error = None;
    let reservations = ledger.reservations().map_err(failed)?;
    let living = Living::observe(reservations.iter().filter_map(|held| held.sandbox.as_ref()));
    for reservation in reservations {
        let Holder::Attachment { container_id, ifname } = &reservation.holder else { continue };
        let is_listed = valid
            .iter()
            .any(|a| a.container_id == container_id.as_str() && a.ifname == ifname.as_str());
        let evidence = Evidence {
            sandbox: reservation.sandbox.as_ref(),
            runtime: if is_listed { Runtime::Lists } else { Runtime::DoesNotList },
            // An IPAM plugin knows nothing of interfaces.
            ..Evidence::default()
        };
        if living.judge(&evidence) == Life::Gone
            && let Err(error) = free(&ledger, &reservation, Reason::Unlisted)
        {
            first_error.get_or_insert(failed(error));
        }
    }
    first_error.map_or(Ok(()), Err)
}
