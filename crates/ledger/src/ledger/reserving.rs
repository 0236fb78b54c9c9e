//! Reserving and releasing the addresses of holders.

use log::warn;
use weft_files::FileError;

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

    /// Takes back what `holder` holds, and says what it was. Nothing held is nothing to do.
    pub fn release(&self, holder: &Holder) -> Result<Option<Reservation>, FileError> {
        let mut locked = self.lock()?;
        self.release_locked(&mut locked, holder)
    }

    /// Takes back this very reservation, and says whether it was still there: its holder may have
    /// got another one since it was read.
    pub fn release_exactly(&self, reservation: &Reservation) -> Result<bool, FileError> {
        let mut locked = self.lock()?;
        if self.reservation(&reservation.holder)?.as_ref() != Some(reservation) {
            return Ok(false);
        }
        Ok(self.release_locked(&mut locked, &reservation.holder)?.is_some())
    }

    fn release_locked(
        &self,
        locked: &mut Locked<'_>,
        holder: &Holder,
    ) -> Result<Option<Reservation>, FileError> {
        let path = self.dir.reservation(holder);
        match self.reservation(holder) {
            Ok(None) => Ok(None),
            Ok(Some(reservation)) => {
                let slot = locked.base_of(reservation.pool, reservation.host)?;
                let slot = locked.held_by(slot, holder)?;
                match (&reservation.loan, &reservation.sticky, slot) {
                    (None, Some(sticky), Some(slot)) if locked.may_keep(sticky)? => {
                        let at = (reservation.pool, reservation.host);
                        let kept = kept_reservation(at, reservation.addresses.clone(), sticky);
                        locked.hand_over(slot, holder, &kept)?;
                    }
                    (None, ..) => locked.remove(&path, slot)?,
                    (Some(loan), ..) if self.is_passed_on(&reservation, loan.id)? => {
                        locked.remove(&path, slot)?;
                    }
                    (Some(loan), ..) => locked.give_back(&path, loan.id, slot)?,
                }
                Ok(Some(reservation))
            }
            Err(FileError::Damaged { path, reason }) => {
                warn!("{} is damaged ({reason}); releasing what the index knows", path.display());
                let found = locked.index.find_holder(holder.hash()).map_err(self.index_error())?;
                locked.remove(&path, found)?;
                Ok(None)
            }
            Err(error) => Err(error),
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
