//! Reserving and releasing the addresses of holders.

use std::path::Path;

use log::warn;
use weft_files::{self as files, FileError};

use super::kept::kept_reservation;
use super::{About, Ledger, Locked, Outcome, Want};
use crate::clock::now;
use crate::holder::Holder;
use crate::reservation::{Reservation, Sandbox};

impl Ledger {
    /// Gives `holder` an address.
    pub fn reserve<'a>(
        &self,
        holder: &Holder,
        want: Want,
        about: impl Into<About<'a>>,
    ) -> Result<Outcome, FileError> {
        let about = about.into();
        let mut locked = self.lock()?;
        if let Some(reservation) = locked.reservation(holder)? {
            if locked.is_stranded(&reservation)? {
                return Ok(Outcome::Stranded(reservation));
            }
            return Ok(Outcome::Held(self.renew(reservation, holder, about.sandbox)?));
        }
        if let Some((slot, kept)) = locked.kept_slot(about.sticky, want)? {
            let reservation = Reservation {
                holder: holder.clone(),
                sandbox: about.sandbox.cloned(),
                sticky: about.sticky.cloned(),
                created: now(),
                ..kept.clone()
            };
            locked.hand_over(slot, &kept.holder, &reservation)?;
            return Ok(Outcome::Held(reservation));
        }
        match locked.choose(want)? {
            Ok(slot) => locked.enter(slot, holder, about).map(Outcome::Held),
            Err(outcome) => Ok(outcome),
        }
    }

    /// Takes back what `holder` holds, and says what it was. Nothing held is nothing to do. Needs
    /// no space: on a full file system what is not written is made up for by the next process that
    /// has room.
    pub fn release(&self, holder: &Holder) -> Result<Option<Reservation>, FileError> {
        self.release_if(holder, |_| true)
    }

    /// Takes back this very reservation, and says whether it was still there: its holder may have
    /// got another one since it was read.
    pub fn release_exactly(&self, reservation: &Reservation) -> Result<bool, FileError> {
        let is_same = |held: Option<&Reservation>| held == Some(reservation);
        Ok(self.release_if(&reservation.holder, is_same)?.is_some())
    }

    /// Takes back what `holder` holds if its file cannot be read, and says whether that was so: it
    /// may have got another reservation since.
    pub fn release_damaged(&self, holder: &Holder) -> Result<bool, FileError> {
        let mut was_damaged = false;
        self.release_if(holder, |held| {
            was_damaged = held.is_none();
            was_damaged
        })?;
        Ok(was_damaged)
    }

    /// Takes back what `holder` holds, if `judge` agrees to it under the lock: to a reservation, or
    /// to one that cannot be read.
    fn release_if(
        &self,
        holder: &Holder,
        judge: impl FnOnce(Option<&Reservation>) -> bool,
    ) -> Result<Option<Reservation>, FileError> {
        let mut locked = match self.lock_to_free() {
            Err(error) if error.is_full() && matches!(self.reservation(holder), Ok(None)) => {
                return Ok(None);
            }
            locked => locked?,
        };
        let path = self.dir.reservation(holder);
        let held = match self.reservation(holder) {
            Ok(None) => return Ok(None),
            Ok(Some(held)) => Some(held),
            Err(FileError::Damaged { path, reason }) => {
                warn!("{} is damaged ({reason}); releasing what the index knows", path.display());
                None
            }
            Err(error) => return Err(error),
        };
        if !judge(held.as_ref()) {
            return Ok(None);
        }
        match (&mut locked, &held) {
            (Ok(locked), Some(held)) => self.release_held(locked, &path, holder, held)?,
            (Ok(locked), None) => {
                let found = locked.index.find_holder(holder.hash()).map_err(self.index_error())?;
                locked.remove(&path, found)?;
            }
            (Err(_), held) => {
                match held.as_ref().and_then(|held| Some((held, held.loan.as_ref()?))) {
                    Some((held, loan)) if !self.is_passed_on(held, loan.id)? => {
                        self.move_to_returns(&path, loan.id)?;
                    }
                    _ => files::remove(&path).map(drop)?,
                }
            }
        }
        Ok(held)
    }

    fn release_held(
        &self,
        locked: &mut Locked<'_>,
        path: &Path,
        holder: &Holder,
        held: &Reservation,
    ) -> Result<(), FileError> {
        let slot = locked.base_of(held.pool, held.host)?;
        let slot = locked.held_by(slot, holder)?;
        match (&held.loan, &held.sticky, slot) {
            (None, Some(sticky), Some(slot)) if locked.may_keep(sticky)? => {
                let kept = kept_reservation((held.pool, held.host), held.addresses.clone(), sticky);
                match locked.hand_over(slot, holder, &kept) {
                    Err(error) if error.is_full() => {
                        // Its own file may have been what the new one has no room beside.
                        locked.remove(path, Some(slot))?;
                        if let Err(error) = locked.enter_as(slot, &kept) {
                            warn!("{} is not kept for {}: {error}", kept.shown(), sticky.identity);
                        }
                        Ok(())
                    }
                    done => done,
                }
            }
            (None, ..) => locked.remove(path, slot),
            (Some(loan), ..) if self.is_passed_on(held, loan.id)? => locked.remove(path, slot),
            (Some(loan), ..) => locked.give_back(path, loan.id, slot),
        }
    }

    /// Notes the sandbox of an attachment that asks again, which may be in another one, and
    /// the lease of a prepared holder.
    pub(super) fn renew(
        &self,
        reservation: Reservation,
        holder: &Holder,
        sandbox: Option<&Sandbox>,
    ) -> Result<Reservation, FileError> {
        let sandbox = sandbox.or(reservation.sandbox.as_ref()).cloned();
        if reservation.sandbox == sandbox && reservation.holder == *holder {
            return Ok(reservation);
        }
        let reservation = Reservation { sandbox, holder: holder.clone(), ..reservation };
        self.put_reservation(&reservation)?;
        Ok(reservation)
    }
}
