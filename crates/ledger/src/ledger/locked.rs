//! Steps that are taken while the ledger's lock is held.

use std::path::Path;

use log::debug;
use weft_model::{Block, HostNumber, PoolIndex};

use super::{About, Locked, Outcome, Want};
use crate::holder::{Holder, hash};
use crate::index::{Slot, State};
use crate::reservation::Reservation;
use weft_files::{self as files, FileError};

impl Locked<'_> {
    /// The slot that a request comes down to, or why there is none.
    pub(super) fn choose(&mut self, want: Want) -> Result<Result<Slot, Outcome>, FileError> {
        self.require_complete()?;
        match want {
            Want::Exactly(pool, host) => self.slot_of(pool, host),
            Want::Any => Ok(self.index.oldest_free().ok_or(Outcome::NoRoom)),
        }
    }

    /// The slot of a wanted address, or why it is not to be had.
    pub(super) fn slot_of(
        &self,
        pool: PoolIndex,
        host: HostNumber,
    ) -> Result<Result<Slot, Outcome>, FileError> {
        let Some(definition) = self.ledger.network.pool(pool) else {
            return Ok(Err(Outcome::Withheld));
        };
        if !definition.is_assignable(host) {
            return Ok(Err(Outcome::Withheld));
        }
        let Some(slot) = self.base_of(pool, host)? else {
            let block = Block::containing(pool, host, definition.block_bits());
            return Ok(Err(Outcome::NotOwned(block)));
        };
        let record = self.index.get(slot).map_err(self.ledger.index_error())?;
        Ok(match record.state {
            State::Free => Ok(slot),
            State::Reserved => Err(Outcome::Taken(self.holder_of(record.holder)?)),
            State::Withheld | State::Hole => Err(Outcome::Withheld),
        })
    }

    /// The slot of `host`, if a block of this node holds it.
    pub(super) fn base_of(
        &self,
        pool: PoolIndex,
        host: HostNumber,
    ) -> Result<Option<Slot>, FileError> {
        let Some(block) = self.ledger.network.block_at(pool, host) else { return Ok(None) };
        let path = self.ledger.dir.block(&block);
        let Some(content) = files::read(&path)? else { return Ok(None) };
        let base: Option<u32> = std::str::from_utf8(&content).ok().and_then(|s| s.parse().ok());
        let slot = base.and_then(|base| {
            base.checked_add(u32::try_from(host.get() - block.first().get()).ok()?)
        });
        let slot = slot.ok_or_else(|| FileError::Damaged {
            path: path.clone(),
            reason: "it should hold one number".into(),
        })?;
        let record = self.index.get(slot).map_err(self.ledger.index_error())?;
        if (record.pool, record.host) != (pool.get(), host.get()) {
            return Err(FileError::Damaged {
                path,
                reason: format!("slot {slot} is that of host {}, not of {host}", record.host),
            });
        }
        Ok(Some(slot))
    }

    /// The holder whose file name has this hash.
    pub(super) fn holder_of(&self, holder: u64) -> Result<Holder, FileError> {
        let found = self.ledger.reservations_with(|name| hash(name) == holder)?.pop();
        found.map(|reservation| reservation.holder).ok_or_else(|| FileError::Damaged {
            path: self.ledger.dir.reservations(),
            reason: "an address is held by a reservation that cannot be read".into(),
        })
    }

    /// Makes the reservation of a free slot.
    pub(super) fn enter(
        &mut self,
        slot: Slot,
        holder: &Holder,
        about: About<'_>,
    ) -> Result<Reservation, FileError> {
        let ledger = self.ledger;
        let record = self.index.get(slot).map_err(ledger.index_error())?;
        let host = HostNumber::new(record.host);
        let addresses = PoolIndex::new(usize::from(record.pool))
            .ok()
            .and_then(|pool| Some((pool, ledger.network.addresses(pool, host)?)));
        let Some((pool, addresses)) = addresses else {
            return Err(FileError::Damaged {
                path: ledger.dir.index(),
                reason: format!("it names pool {}, which the network lacks", record.pool),
            });
        };
        let reservation = Reservation {
            sandbox: about.sandbox.cloned(),
            sticky: about.sticky.cloned(),
            ..Reservation::new(holder.clone(), (pool, host), addresses.iter().collect())
        };
        self.enter_as(slot, &reservation)?;
        Ok(reservation)
    }

    /// Makes this reservation of a free slot. Where there is no room for it, nothing has changed.
    pub(super) fn enter_as(
        &mut self,
        slot: Slot,
        reservation: &Reservation,
    ) -> Result<(), FileError> {
        let ledger = self.ledger;
        ledger.stage_reservation(reservation)?;
        self.change(|locked| {
            ledger.place_reservation(reservation)?;
            let holder = reservation.holder.hash();
            locked.index.reserve(slot, holder).map_err(ledger.index_error())
        })
    }

    /// Unmakes a reservation.
    pub(super) fn remove(&mut self, path: &Path, slot: Option<Slot>) -> Result<(), FileError> {
        self.unmake(slot, || files::remove(path).map(drop))
    }

    /// Frees a slot by `unmaking` the file that holds it. Takes no space: the index is marked dirty
    /// in place, or where even that is refused it is removed. Once the file is gone the address is
    /// free, whatever becomes of the index.
    pub(super) fn unmake(
        &mut self,
        slot: Option<Slot>,
        unmaking: impl FnOnce() -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let index = self.ledger.dir.index();
        if let Err(error) = self.index.begin() {
            debug!("{} is removed, to be rebuilt: {error}", index.display());
            files::remove(&index)?;
            return unmaking();
        }
        unmaking()?;
        let freed = slot.map_or(Ok(()), |slot| self.index.release(slot));
        if let Err(error) = freed.and_then(|()| self.index.commit()) {
            debug!("{} is to be rebuilt: {error}", index.display());
        }
        Ok(())
    }

    /// Runs a change of files and index, with the index marked dirty meanwhile. After a failure it
    /// stays so, and the next one to lock the ledger rebuilds it.
    pub(super) fn change(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        self.index.begin().map_err(self.ledger.index_error())?;
        change(self)?;
        self.index.commit().map_err(self.ledger.index_error())
    }
}
