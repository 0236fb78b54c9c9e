//! Addresses that were lent to other nodes, and those that were borrowed from them.
//!
//! A lent address is a reservation whose holder is the other node. A borrowed one is a reservation
//! that names its loan and stands in no block of this node; when it is released it goes to
//! `returns/`, from where it is given back to the lender when the cluster store can be reached.

use std::collections::BTreeSet;

use weft_model::{Block, HostNumber, LoanId, NodeName, PoolIndex};

use super::kept::kept_reservation;
use super::{About, Ledger, Locked, Outcome, Want, read_reservation};
use crate::clock::now;
use crate::holder::{Holder, HolderKey, lent_file_name};
use crate::index::State;
use crate::reservation::{Loan, Reservation, Sticky};
use weft_files::{self as files, FileError};

/// An address of a block that lives on another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The host number in the block's pool.
    pub host: HostNumber,
    /// The node that has it.
    pub node: NodeName,
    /// The loan by which it does, if by one.
    pub loan: Option<LoanId>,
}

impl Ledger {
    /// Sets an address aside for another node. Asked again for the same loan, it says the same.
    /// What is kept for the identity that it is lent for is lent to it.
    pub fn lend(
        &self,
        want: Want,
        to: &NodeName,
        loan: LoanId,
        sticky: Option<&Sticky>,
    ) -> Result<Outcome, FileError> {
        let mut locked = self.lock()?;
        let same = |reservation: &Reservation| match &reservation.holder {
            Holder::Lent { loan: id, .. } => *id == Some(loan),
            _ => false,
        };
        if let Some(reservation) = self.lent()?.into_iter().find(same) {
            return Ok(Outcome::Held(reservation));
        }
        let lent = |pool, host| Holder::Lent {
            pool,
            host,
            node: to.clone(),
            loan: Some(loan),
            sticky: sticky.cloned(),
        };
        if let Some((slot, kept)) = locked.kept_slot(sticky, want)? {
            let reservation = Reservation {
                holder: lent(kept.pool, kept.host),
                sticky: sticky.cloned(),
                created: now(),
                ..kept.clone()
            };
            locked.hand_over(slot, &kept.holder, &reservation)?;
            return Ok(Outcome::Held(reservation));
        }
        let slot = match locked.choose(want)? {
            Ok(slot) => slot,
            Err(outcome) => return Ok(outcome),
        };
        let record = locked.index.get(slot).map_err(self.index_error())?;
        let Ok(pool) = PoolIndex::new(usize::from(record.pool)) else {
            return Ok(Outcome::Withheld);
        };
        let host = HostNumber::new(record.host);
        let about = About { sandbox: None, sticky };
        locked.enter(slot, &lent(pool, host), about).map(Outcome::Held)
    }

    /// The addresses that live on other nodes.
    pub fn lent(&self) -> Result<Vec<Reservation>, FileError> {
        self.reservations_with(|name| matches!(HolderKey::parse(name), Some(HolderKey::Lent(..))))
    }

    /// Enters a block some of whose addresses are in use elsewhere, or here by a loan. A block that
    /// is entered already has the addresses set aside that are `away`.
    /// So are those that are `kept` for identities.
    pub fn add_used_block(
        &self,
        block: &Block,
        away: &[Away],
        kept: &[(HostNumber, Sticky)],
    ) -> Result<(), FileError> {
        let mut locked = self.lock()?;
        locked.index.begin().map_err(self.index_error())?;
        for away in away {
            let Some(addresses) = self.network.addresses(block.pool(), away.host) else { continue };
            let holder = Holder::Lent {
                pool: block.pool(),
                host: away.host,
                node: away.node.clone(),
                loan: away.loan,
                sticky: None,
            };
            let at = (block.pool(), away.host);
            self.put_reservation(&Reservation::new(holder, at, addresses.iter().collect()))?;
        }
        let mut held: BTreeSet<_> =
            self.reservations()?.iter().map(|held| (held.pool, held.host)).collect();
        for (host, sticky) in kept {
            // Two identities may have had one address in turn; the cluster remembers both.
            let at = (block.pool(), *host);
            if !held.insert(at) {
                continue;
            }
            let Some(addresses) = self.network.addresses(block.pool(), *host) else { continue };
            if self.kept_by_id(sticky.id())?.is_none() {
                let addresses = addresses.iter().collect();
                self.put_reservation(&kept_reservation(at, addresses, sticky))?;
            }
        }
        // The number is that of the first slot, and rebuilding gives a new one.
        self.put_block(block, 0)?;
        self.rebuild()?;
        self.forget_loss(block)
    }

    /// Enters a borrowed address; `None` if the holder has an address already, or if the address is
    /// held here by somebody else.
    pub fn borrow(
        &self,
        holder: &Holder,
        (pool, host): (PoolIndex, HostNumber),
        loan: &Loan,
        about: About<'_>,
    ) -> Result<Option<Reservation>, FileError> {
        let mut locked = self.lock()?;
        let Some(addresses) = self.network.addresses(pool, host) else { return Ok(None) };
        if self.reservation(holder)?.is_some() {
            return Ok(None);
        }
        if locked.base_of(pool, host)?.is_some() {
            locked.require_complete()?;
        }
        let slot = locked.base_of(pool, host)?;
        if let Some(slot) = slot
            && locked.index.get(slot).map_err(self.index_error())?.state != State::Free
        {
            return Ok(None);
        }
        let reservation = Reservation {
            sandbox: about.sandbox.cloned(),
            loan: Some(loan.clone()),
            sticky: about.sticky.cloned(),
            ..Reservation::new(holder.clone(), (pool, host), addresses.iter().collect())
        };
        // Both are there when the address goes back, which must not take space.
        files::create_private_dir(&self.dir.returns())?;
        files::create_private_dir(&self.dir.loans())?;
        // A note of a loan that no reservation names is none.
        files::put(&self.dir.loan(loan.id), &self.scratch(), holder.file_name().as_bytes())?;
        self.stage_reservation(&reservation)?;
        locked.change(|locked| {
            self.place_reservation(&reservation)?;
            slot.map_or(Ok(()), |slot| locked.index.reserve(slot, holder.hash()))
                .map_err(self.index_error())
        })?;
        Ok(Some(reservation))
    }

    /// The reservation that names the loan, if there is one.
    pub fn borrowed(&self, loan: LoanId) -> Result<Option<Reservation>, FileError> {
        let Some(name) = files::read(&self.dir.loan(loan))? else { return Ok(None) };
        let Ok(name) = std::str::from_utf8(&name) else { return Ok(None) };
        let reservation = read_reservation(&self.dir.reservations().join(name))?;
        Ok(reservation.filter(|r| r.loan.as_ref().is_some_and(|l| l.id == loan)))
    }

    /// All loans that reservations of this node name, or named when a process was killed.
    pub fn loans(&self) -> Result<Vec<LoanId>, FileError> {
        let names = files::names_in(&self.dir.loans())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Reservations of addresses that were borrowed from other nodes.
    pub fn all_borrowed(&self) -> Result<Vec<Reservation>, FileError> {
        let mut all = vec![];
        for loan in self.loans()? {
            all.extend(self.borrowed(loan)?);
        }
        Ok(all)
    }

    /// Those of `places` that the node or a container of it holds in an own block: neither free
    /// nor lent to another node, nor only kept for an identity.
    pub fn held_among(
        &self,
        places: impl IntoIterator<Item = (PoolIndex, HostNumber)>,
    ) -> Result<BTreeSet<(PoolIndex, HostNumber)>, FileError> {
        let locked = self.lock()?;
        let mut held = BTreeSet::new();
        for (pool, host) in places {
            let Some(slot) = locked.base_of(pool, host)? else { continue };
            let record = locked.index.get(slot).map_err(self.index_error())?;
            if record.state == State::Reserved && !locked.is_away(pool, host) {
                held.insert((pool, host));
            }
        }
        if !held.is_empty() {
            let is_kept = |name: &str| matches!(HolderKey::parse(name), Some(HolderKey::Kept(_)));
            for kept in self.reservations_with(is_kept)? {
                held.remove(&(kept.pool, kept.host));
            }
        }
        Ok(held)
    }

    /// Notes that the cluster knows nothing of the loan any more: its reservation, if there is
    /// one, is stranded.
    pub fn void_loan(&self, loan: LoanId) -> Result<(), FileError> {
        let _locked = self.lock()?;
        if let Some(reservation) = self.borrowed(loan)? {
            self.note_loss(&self.dir.void(loan))?;
            self.put_reservation(&Reservation { loan: None, ..reservation })?;
        }
        files::remove(&self.dir.loan(loan)).map(drop)
    }
}

impl Locked<'_> {
    /// Returns whether the address lives on another node.
    pub(super) fn is_away(&self, pool: PoolIndex, host: HostNumber) -> bool {
        self.ledger.dir.reservations().join(lent_file_name(pool, host)).exists()
    }
}
