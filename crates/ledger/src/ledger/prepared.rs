//! Addresses that are reserved before their containers exist.
//!
//! Some programs want an address first and make the container's interface later, or never: Docker
//! asks for one in one call and attaches in another. Such a reservation has a lease, which the
//! program renews, and is *settled* when the attachment is there: handed over from the prepared
//! holder to it, under the lock, in the order in which a kill at any point leaves one of the two
//! with the address. The file of the attachment comes first; a prepared one that is still there
//! beside it is stale.

use weft_model::{LoanId, PreparedId};

use super::{Ledger, Locked, read_reservation};
use crate::clock::now;
use crate::holder::{Holder, prepared_file_name};
use crate::reservation::{Reservation, Sandbox};
use weft_files::{self as files, FileError};

/// Answer to a request to settle a prepared reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The attachment has the address, from now on or since an earlier call.
    Done(Reservation),
    /// There is no such reservation: it was never made, or it was released.
    Missing,
    /// The lease is over. The address may be another container's at any moment.
    Expired(Reservation),
    /// The attachment has this other reservation already.
    Occupied(Reservation),
}

impl Ledger {
    /// The reservation that was prepared under `id`.
    pub fn prepared(&self, id: &PreparedId) -> Result<Option<Reservation>, FileError> {
        read_reservation(&self.dir.reservations().join(prepared_file_name(id)))
    }

    /// Extends the lease of `id` to `expires`, in seconds since 1970, and returns the reservation;
    /// `None` if there is none, or if its lease is over.
    pub fn renew_prepared(
        &self,
        id: &PreparedId,
        expires: u64,
    ) -> Result<Option<Reservation>, FileError> {
        let locked = self.lock()?;
        let holder = Holder::Prepared { id: id.clone(), expires };
        match locked.reservation(&holder)? {
            Some(prepared) if !prepared.is_expired() => {
                self.renew(prepared, &holder, None).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Hands the address that was prepared under `id` to the attachment `to`. Asked again, it says
    /// the same.
    pub fn settle(
        &self,
        id: &PreparedId,
        to: &Holder,
        sandbox: Option<&Sandbox>,
    ) -> Result<Settled, FileError> {
        let mut locked = self.lock()?;
        // The name of its file does not depend on the lease.
        let from = Holder::Prepared { id: id.clone(), expires: 0 };
        if let Some(held) = self.reservation(to)? {
            if held.settled.as_ref() != Some(id) {
                return Ok(Settled::Occupied(held));
            }
            // A kill between two steps of an earlier call left the prepared one behind.
            locked.reservation(&from)?;
            return self.renew(held, to, sandbox).map(Settled::Done);
        }
        let Some(prepared) = locked.reservation(&from)? else { return Ok(Settled::Missing) };
        if prepared.is_expired() {
            return Ok(Settled::Expired(prepared));
        }
        let settled = Reservation {
            holder: to.clone(),
            sandbox: sandbox.cloned(),
            settled: Some(id.clone()),
            created: now(),
            ..prepared.clone()
        };
        let slot = locked.base_of(prepared.pool, prepared.host)?;
        let slot = locked.held_by(slot, &prepared.holder)?;
        self.stage_reservation(&settled)?;
        locked.change(|locked| {
            self.place_reservation(&settled)?;
            if let Some(loan) = &settled.loan {
                let name = to.file_name();
                files::put(&self.dir.loan(loan.id), &self.scratch(), name.as_bytes())?;
            }
            files::remove(&self.dir.reservation(&prepared.holder))?;
            slot.map_or(Ok(()), |slot| locked.index.rehold(slot, to.hash()))
                .map_err(self.index_error())
        })?;
        Ok(Settled::Done(settled))
    }

    /// Returns whether `reservation` is a prepared one whose loan an attachment has already. The
    /// note of the loan names that attachment afterwards. The caller holds the lock.
    pub(super) fn is_passed_on(
        &self,
        reservation: &Reservation,
        loan: LoanId,
    ) -> Result<bool, FileError> {
        let Holder::Prepared { id, .. } = &reservation.holder else { return Ok(false) };
        let is_successor = |other: &Reservation| {
            other.settled.as_ref() == Some(id) && other.loan.as_ref().is_some_and(|l| l.id == loan)
        };
        let Some(successor) = self.reservations()?.into_iter().find(is_successor) else {
            return Ok(false);
        };
        let name = successor.holder.file_name();
        files::put(&self.dir.loan(loan), &self.scratch(), name.as_bytes())?;
        Ok(true)
    }
}

impl Locked<'_> {
    /// The reservation of `holder`. The file of a prepared holder that no longer has its address is
    /// removed: a call that settled it was killed before it did so, or the block went to another
    /// node and came back.
    pub(super) fn reservation(&self, holder: &Holder) -> Result<Option<Reservation>, FileError> {
        let Some(found) = self.ledger.reservation(holder)? else { return Ok(None) };
        let has_address = match (holder, &found.loan) {
            (Holder::Prepared { .. }, Some(loan)) => !self.ledger.is_passed_on(&found, loan.id)?,
            (Holder::Prepared { .. }, None) => {
                let slot = self.base_of(found.pool, found.host)?;
                self.held_by(slot, holder)?.is_some()
            }
            _ => true,
        };
        if has_address {
            return Ok(Some(found));
        }
        files::remove(&self.ledger.dir.reservation(holder))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
