//! Borrowed addresses that were released here and whose lenders do not know yet.
//!
//! Each is a file in `returns/`, which was the reservation. It goes when the lender has its address
//! back, or when the next holder takes the loan over; the caller of either holds the lock of the
//! loan, so that it is never both.

use std::path::Path;

use weft_model::LoanId;

use super::{About, Ledger, Locked, read_reservation};
use crate::clock::now;
use crate::holder::Holder;
use crate::index::{Slot, State};
use crate::reservation::Reservation;
use weft_files::{self as files, FileError};

impl Ledger {
    /// The loans that were released here and that their lenders do not know of yet.
    pub fn returns(&self) -> Result<Vec<LoanId>, FileError> {
        let names = files::names_in(&self.dir.returns())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The reservation by which the loan was held here until it was released.
    pub fn returned(&self, loan: LoanId) -> Result<Option<Reservation>, FileError> {
        match read_reservation(&self.dir.returned(loan)) {
            Err(FileError::Damaged { .. }) => Ok(None),
            returned => returned,
        }
    }

    /// Gives a loan that is on its way back to `holder`; `None` if it is not on its way back any
    /// more, or if the holder has an address already. The caller has made sure that the lender
    /// counts the address as lent.
    pub fn take_over(
        &self,
        loan: LoanId,
        holder: &Holder,
        about: About<'_>,
    ) -> Result<Option<Reservation>, FileError> {
        let mut locked = self.lock()?;
        let Some(returned) = self.returned(loan)? else { return Ok(None) };
        if self.reservation(holder)?.is_some() {
            return Ok(None);
        }
        let path = self.dir.returned(loan);
        if self.borrowed(loan)?.is_some() {
            // A call that took it over was killed before it removed this.
            files::remove(&path)?;
            return Ok(None);
        }
        let slot = locked.base_of(returned.pool, returned.host)?;
        if let Some(slot) = slot
            && locked.index.get(slot).map_err(self.index_error())?.state != State::Free
        {
            return Ok(None);
        }
        let reservation = Reservation {
            holder: holder.clone(),
            sandbox: about.sandbox.cloned(),
            sticky: about.sticky.cloned(),
            settled: None,
            created: now(),
            ..returned
        };
        files::put(&self.dir.loan(loan), &self.scratch(), holder.file_name().as_bytes())?;
        self.stage_reservation(&reservation)?;
        locked.change(|locked| {
            self.place_reservation(&reservation)?;
            files::remove(&path)?;
            slot.map_or(Ok(()), |slot| locked.index.reserve(slot, holder.hash()))
                .map_err(self.index_error())
        })?;
        Ok(Some(reservation))
    }

    /// Notes that the lender has its address back.
    pub fn forget_return(&self, loan: LoanId) -> Result<(), FileError> {
        files::remove(&self.dir.returned(loan)).map(drop)
    }

    /// Moves the reservation of a borrowed address to those that go back to their lenders. Where
    /// there is no room for its name it is removed: that the cluster store has an endpoint of a
    /// loan that no reservation names tells the agent as much. The caller holds the lock.
    pub(super) fn move_to_returns(&self, path: &Path, loan: LoanId) -> Result<(), FileError> {
        let to = self.dir.returned(loan);
        let moved = files::create_private_dir(&self.dir.returns())
            .and_then(|()| std::fs::rename(path, &to).map_err(FileError::io("move", path)));
        match moved {
            Err(error) if error.is_full() => {
                files::remove(path)?;
            }
            moved => moved?,
        }
        files::remove(&self.dir.loan(loan)).map(drop)
    }
}

impl Locked<'_> {
    /// Unmakes the reservation of a borrowed address.
    pub(super) fn give_back(
        &mut self,
        path: &Path,
        loan: LoanId,
        slot: Option<Slot>,
    ) -> Result<(), FileError> {
        let ledger = self.ledger;
        // A slot is there if the block came to this node in the meantime: the address is free here.
        self.unmake(slot, || ledger.move_to_returns(path, loan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{Fixture, holder};
    use crate::reservation::Loan;
    use weft_model::{HostNumber, NodeName, PoolIndex};

    fn loan() -> LoanId {
        LoanId::new(7)
    }

    fn returned(fixture: &Fixture) -> Reservation {
        let place = (PoolIndex::new(0).unwrap(), HostNumber::new(77));
        let loan = Loan { id: loan(), lender: NodeName::new("b").unwrap() };
        let about = About::default();
        fixture.ledger().borrow(&holder("a"), place, &loan, about).unwrap().unwrap();
        fixture.ledger().release(&holder("a")).unwrap().unwrap()
    }

    #[test]
    fn takes_over_a_returned_loan_once() {
        let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
        let before = returned(&fixture);
        let ledger = fixture.ledger();
        let taken = ledger.take_over(loan(), &holder("b"), About::default()).unwrap().unwrap();
        assert_eq!((taken.host, &taken.loan), (before.host, &before.loan));
        assert_eq!(ledger.reservation(&holder("b")).unwrap(), Some(taken.clone()));
        assert_eq!(ledger.borrowed(loan()).unwrap(), Some(taken));
        assert!(ledger.returns().unwrap().is_empty());
        assert_eq!(ledger.take_over(loan(), &holder("c"), About::default()).unwrap(), None);
    }

    #[test]
    fn a_kill_while_taking_over_leaves_the_loan_with_one_holder() {
        let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
        returned(&fixture);
        let file = std::fs::read(fixture.path(&format!("returns/{}", loan()))).unwrap();
        let ledger = fixture.ledger();
        ledger.take_over(loan(), &holder("b"), About::default()).unwrap().unwrap();
        std::fs::write(fixture.path(&format!("returns/{}", loan())), file).unwrap();
        assert_eq!(ledger.take_over(loan(), &holder("c"), About::default()).unwrap(), None);
        assert!(ledger.returns().unwrap().is_empty());
        assert!(ledger.reservation(&holder("b")).unwrap().is_some());
    }
}
