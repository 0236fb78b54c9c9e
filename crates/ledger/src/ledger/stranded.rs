//! Blocks that went to another node while this one used them: after `weftctl node remove` of a node
//! that was only cut off.

use weft_model::Block;

use super::{Ledger, Locked};
use crate::reservation::Reservation;
use weft_files::{self as files, FileError};

impl Ledger {
    /// Strikes out a block that is another node's now. Its reservations stay, stranded, until they
    /// are released.
    pub fn lose_block(&self, block: &Block) -> Result<(), FileError> {
        let mut locked = self.lock()?;
        if !self.owns(block) {
            return Ok(());
        }
        locked.index.begin().map_err(self.index_error())?;
        self.note_loss(&self.dir.stranded(block))?;
        files::remove(&self.dir.block(block))?;
        self.forget_unused(block)?;
        self.rebuild().map(drop)
    }

    /// Notes that the block may be lost, before it is tried to take it again: if that is cut short,
    /// what lives elsewhere of the block is looked up again.
    pub fn note_possible_loss(&self, block: &Block) -> Result<(), FileError> {
        let _locked = self.lock()?;
        self.note_loss(&self.dir.stranded(block))
    }

    /// Leaves a note that reservations may be stranded. The caller holds the lock.
    pub(super) fn note_loss(&self, note: &std::path::Path) -> Result<(), FileError> {
        files::create_private_dir(&self.dir.losses())?;
        files::put(note, &self.scratch(), b"")
    }

    /// Returns whether blocks or loans were lost, or may have been.
    pub fn has_losses(&self) -> Result<bool, FileError> {
        Ok(!files::names_in(&self.dir.losses())?.is_empty())
    }

    /// Forgets what was lost, now that no reservation is stranded by it.
    pub fn forget_losses(&self) -> Result<(), FileError> {
        let _locked = self.lock()?;
        for name in files::names_in(&self.dir.losses())? {
            files::remove(&self.dir.losses().join(name))?;
        }
        Ok(())
    }

    /// The reservations of containers, and of the node, whose addresses are not this node's to use.
    /// Costs next to nothing while nothing was ever lost.
    pub fn stranded(&self) -> Result<Vec<Reservation>, FileError> {
        if !self.has_losses()? {
            return Ok(vec![]);
        }
        let locked = self.lock()?;
        let mut stranded = vec![];
        for reservation in self.reservations()? {
            if locked.is_stranded(&reservation)? {
                stranded.push(reservation);
            }
        }
        Ok(stranded)
    }

    /// Returns whether reservations of `block` may have outlived the ownership of it.
    pub fn was_lost(&self, block: &Block) -> bool {
        self.dir.stranded(block).exists()
    }

    /// Notes that `block` is this node's again.
    pub(super) fn forget_loss(&self, block: &Block) -> Result<(), FileError> {
        files::remove(&self.dir.stranded(block)).map(drop)
    }
}

impl Locked<'_> {
    /// Returns whether the reservation is of an address that is neither borrowed nor in an own
    /// block, or of one that was lent by another owner while the block was not this node's.
    pub(super) fn is_stranded(&self, reservation: &Reservation) -> Result<bool, FileError> {
        if reservation.loan.is_some() || !reservation.holder.is_using() {
            return Ok(false);
        }
        let Reservation { pool, host, .. } = *reservation;
        Ok(self.base_of(pool, host)?.is_none() || self.is_away(pool, host))
    }
}
