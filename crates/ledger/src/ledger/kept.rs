//! Addresses that are kept for an identity while nobody holds them.

use std::net::IpAddr;

use weft_model::{Block, HostNumber, PoolIndex, StickyId};

use super::{Ledger, Locked, Want, read_reservation};
use crate::clock::now;
use crate::holder::{Holder, HolderKey, kept_file_name};
use crate::index::{Slot, State};
use crate::reservation::{Reservation, Sticky};
use weft_files::{self as files, FileError};

impl Ledger {
    /// The addresses that are kept for identities.
    pub fn all_kept(&self) -> Result<Vec<Reservation>, FileError> {
        self.reservations_with(|name| matches!(HolderKey::parse(name), Some(HolderKey::Kept(_))))
    }

    /// The address that is kept here for an identity.
    pub fn kept(&self, sticky: &Sticky) -> Result<Option<Reservation>, FileError> {
        let kept = self.kept_by_id(sticky.id())?;
        Ok(kept.filter(|kept| kept.holder.is_kept_for(sticky)))
    }

    /// The address that is kept under an id, for that identity or another one.
    pub(super) fn kept_by_id(&self, id: StickyId) -> Result<Option<Reservation>, FileError> {
        read_reservation(&self.dir.reservations().join(kept_file_name(id)))
    }

    /// Returns whether this node's own files tell which address an identity has.
    pub fn keeps_for(&self, sticky: &Sticky) -> Result<bool, FileError> {
        Ok(self.lock()?.kept_slot(Some(sticky), Want::Any)?.is_some())
    }

    /// The reservations whose time is over: of identities that have not come back, and of prepared
    /// containers that were not made.
    pub fn expired(&self) -> Result<Vec<Reservation>, FileError> {
        let mut expired = self.unused()?;
        expired.retain(Reservation::is_expired);
        Ok(expired)
    }

    /// Returns whether there are reservations that expire: kept and prepared ones.
    pub fn has_unused(&self) -> Result<bool, FileError> {
        Ok(!self.unused()?.is_empty())
    }

    /// The reservations of holders that do not exist at the moment: kept and prepared ones.
    fn unused(&self) -> Result<Vec<Reservation>, FileError> {
        self.reservations_with(|name| {
            matches!(HolderKey::parse(name), Some(HolderKey::Kept(_) | HolderKey::Prepared(_)))
        })
    }

    /// Forgets what is kept or prepared in a block that is another node's now.
    pub(super) fn forget_unused(&self, block: &Block) -> Result<(), FileError> {
        for unused in self.unused()? {
            if unused.loan.is_none() && unused.pool == block.pool() && block.contains(unused.host) {
                files::remove(&self.dir.reservation(&unused.holder))?;
            }
        }
        Ok(())
    }
}

/// The reservation that keeps an address from now on.
pub(super) fn kept_reservation(
    at: (PoolIndex, HostNumber),
    addresses: Vec<IpAddr>,
    sticky: &Sticky,
) -> Reservation {
    let until = now().saturating_add(sticky.keep);
    Reservation::new(Holder::Kept { sticky: sticky.clone(), until }, at, addresses)
}

impl Locked<'_> {
    /// The slot that is kept for an identity, with what keeps it, if it is what is wanted.
    pub(super) fn kept_slot(
        &self,
        sticky: Option<&Sticky>,
        want: Want,
    ) -> Result<Option<(Slot, Reservation)>, FileError> {
        let Some(sticky) = sticky else { return Ok(None) };
        let Some(kept) = self.ledger.kept(sticky)? else { return Ok(None) };
        if !matches!(want, Want::Any) && want != Want::Exactly(kept.pool, kept.host) {
            return Ok(None);
        }
        if self.is_away(kept.pool, kept.host) {
            return Ok(None);
        }
        let slot = self.base_of(kept.pool, kept.host)?;
        let slot = self.held_by(slot, &kept.holder)?;
        Ok(slot.map(|slot| (slot, kept)))
    }

    /// Returns whether an address is to be kept for an identity, and none is yet. A file that no
    /// slot stands behind was left by a call that was killed; one of another identity stays.
    pub(super) fn may_keep(&self, sticky: &Sticky) -> Result<bool, FileError> {
        if sticky.keep == 0 {
            return Ok(false);
        }
        match self.ledger.kept_by_id(sticky.id())? {
            Some(other) if !other.holder.is_kept_for(sticky) => Ok(false),
            _ => Ok(self.kept_slot(Some(sticky), Want::Any)?.is_none()),
        }
    }

    /// The slot, if it is this holder's. Two files may name one address for a while, after a call
    /// that was killed or a block that was lost and came back; the index names its holder.
    pub(super) fn held_by(
        &self,
        slot: Option<Slot>,
        holder: &Holder,
    ) -> Result<Option<Slot>, FileError> {
        let Some(slot) = slot else { return Ok(None) };
        let record = self.index.get(slot).map_err(self.ledger.index_error())?;
        let is_its = record.state == State::Reserved && record.holder == holder.hash();
        Ok(is_its.then_some(slot))
    }

    /// Hands a slot from one holder to the next, without anybody else coming in between.
    pub(super) fn hand_over(
        &mut self,
        slot: Slot,
        from: &Holder,
        to: &Reservation,
    ) -> Result<(), FileError> {
        let ledger = self.ledger;
        let path = ledger.dir.reservation(from);
        ledger.stage_reservation(to)?;
        self.change(|locked| {
            ledger.place_reservation(to)?;
            files::remove(&path)?;
            locked.index.rehold(slot, to.holder.hash()).map_err(ledger.index_error())
        })
    }
}

#[cfg(test)]
mod tests;
