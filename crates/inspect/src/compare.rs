//! Files and store compared: a pure function of what was read of both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_ledger::ledger::Away;
use weft_ledger::{Holder, Reservation};
use weft_model::{Block, Endpoint, HostNumber, PoolIndex};

use crate::difference::{Difference, Fix, Kind};
use crate::records::{Damaged, Records};

impl Records {
    fn difference(&self, kind: Kind, what: String, remedy: impl Into<String>) -> Difference {
        Difference::new(&self.network, kind, what, remedy)
    }

    fn block_of(&self, reservation: &Reservation) -> Option<Block> {
        self.network.block_at(reservation.pool, reservation.host)
    }

    fn has(&self, block: &Block) -> bool {
        self.blocks.iter().any(|(own, _)| own == block)
    }

    /// All differences between files and store. A pure function of what was read.
    pub fn compare(&self) -> Vec<Difference> {
        let mut all: Vec<Difference> = self
            .damage
            .iter()
            .map(|what| {
                let remedy = "nothing else of the ledger can be compared until it is put right";
                self.difference(Kind::DamagedFile, what.clone(), remedy)
            })
            .collect();
        // Without its ledger a node seems to lack everything.
        if self.damage.is_empty() {
            self.compare_blocks(&mut all);
            self.compare_reservations(&mut all);
            self.compare_endpoints(&mut all);
            self.compare_lent(&mut all);
            self.compare_index(&mut all);
        }
        all
    }

    fn compare_blocks(&self, all: &mut Vec<Difference>) {
        for (block, owner) in &self.view.blocks {
            if *owner == self.node && !self.has(block) {
                let what = format!("block {block} is this node's in the store, but not here");
                let remedy = "nothing is lost: weftd, or the next container that needs room, takes \
                              it up again; --fix does it now";
                let fix = Fix::Adopt(*block);
                // After a reboot that is as it should be.
                let mut held = self.files.reservations.iter();
                let is_note = !held.any(|held| self.block_of(held) == Some(*block))
                    && self.files.damaged.is_empty();
                all.push(Difference {
                    is_note,
                    fix,
                    ..self.difference(Kind::BlockNotEntered, what, remedy)
                });
            }
        }
        for (block, counts) in &self.blocks {
            let owner = self.view.blocks.get(block);
            let (whose, remedy) = match owner {
                Some(owner) if *owner == self.node => continue,
                Some(owner) => (
                    format!("node {owner}'s"),
                    "--fix, or weftd, strikes it out here; containers with addresses in it must be \
                     started again",
                ),
                None => ("unowned".to_owned(), "--fix, or weftd, takes it again"),
            };
            let what = format!(
                "block {block}, {} of whose addresses are held here, is {whose} in the store",
                counts.reserved
            );
            let difference = self.difference(Kind::BlockNotOwned, what, remedy);
            all.push(Difference { fix: Fix::Verify, ..difference });
        }
    }

    fn compare_reservations(&self, all: &mut Vec<Difference>) {
        let mut holders: BTreeMap<(PoolIndex, HostNumber), Vec<&Reservation>> = BTreeMap::new();
        // An address that is only kept gives way to the container that has it.
        let is_kept = |r: &&Reservation| matches!(r.holder, Holder::Kept { .. });
        for reservation in self.files.reservations.iter().filter(|r| !is_kept(r)) {
            holders.entry((reservation.pool, reservation.host)).or_default().push(reservation);
        }
        for holders in holders.values().filter(|holders| holders.len() > 1) {
            let names: Vec<String> = holders.iter().map(|r| r.holder.to_string()).collect();
            let what = format!("{} is held by {}", holders[0].shown(), names.join(" and by "));
            let remedy = "delete these containers but one and start them again";
            let addresses = holders[0].addresses.clone();
            all.push(Difference { addresses, ..self.difference(Kind::HeldTwice, what, remedy) });
        }
        for reservation in &self.stranded {
            let block = self.block_of(reservation);
            let owner = block.and_then(|block| self.view.blocks.get(&block));
            if owner == Some(&self.node) && block.is_some_and(|block| !self.has(&block)) {
                // The block is to be entered, and then all is well.
                continue;
            }
            let whose = owner.filter(|owner| **owner != self.node);
            let what = format!(
                "{} is held by {}, but {}",
                reservation.shown(),
                reservation.holder,
                whose.map_or_else(
                    || "is not this node's to use".to_owned(),
                    |owner| format!("belongs to node {owner}")
                )
            );
            let remedy = "delete the container and start it again";
            all.push(Difference {
                addresses: reservation.addresses.clone(),
                ..self.difference(Kind::Stranded, what, remedy)
            });
        }
        for reservation in &self.files.reservations {
            if let Some(loan) = &reservation.loan
                && !self.view.endpoints.values().any(|stored| {
                    stored.record.loan == Some(loan.id) && stored.record.node == self.node
                })
            {
                let what = format!(
                    "{} is held by {}, borrowed from node {}, but the store knows nothing of the \
                     loan",
                    reservation.shown(),
                    reservation.holder,
                    loan.lender
                );
                all.push(Difference {
                    addresses: reservation.addresses.clone(),
                    ..self.difference(
                        Kind::LoanUnknown,
                        what,
                        "weftd takes the container off the network; delete it and start it again",
                    )
                });
            }
        }
    }

    fn held_at(&self, place: (PoolIndex, HostNumber)) -> impl Iterator<Item = &Reservation> {
        self.files.reservations.iter().filter(move |r| (r.pool, r.host) == place)
    }

    /// Single addresses that the store lists.
    fn compare_endpoints(&self, all: &mut Vec<Difference>) {
        for (address, stored) in &self.view.endpoints {
            let endpoint = &stored.record;
            let Some(place) = self.network.locate(*address) else { continue };
            all.extend(if endpoint.node == self.node {
                self.unused(*address, place, endpoint)
            } else {
                self.not_set_aside(*address, place, endpoint)
            });
        }
    }

    /// An address that lives here according to the store, unless it is held here.
    fn unused(
        &self,
        address: IpAddr,
        place: (PoolIndex, HostNumber),
        endpoint: &Endpoint,
    ) -> Option<Difference> {
        // A reservation that cannot be read may be of it.
        let may_be = |d: &Damaged| d.addresses.is_empty() || d.addresses.contains(&address);
        if self.held_at(place).any(|r| !is_lent(r)) || self.files.damaged.iter().any(may_be) {
            return None;
        }
        let what = if endpoint.loan.is_some_and(|loan| self.returns.contains(&loan)) {
            format!("{address} was borrowed, is free again, and not given back yet")
        } else {
            format!("the store says that {address} is in use here, and nobody has it")
        };
        let (fix, remedy) = match endpoint.loan {
            Some(_) => (Fix::Tidy, "weftd gives it back to its lender; --fix does it now"),
            None => (Fix::None, "weft did not write this: delete the key if nobody needs it"),
        };
        let difference = self.difference(Kind::EndpointUnused, what, remedy);
        Some(Difference { addresses: vec![address], fix, ..difference })
    }

    /// An address of an own block that lives elsewhere according to the store, unless it is set
    /// aside here.
    fn not_set_aside(
        &self,
        address: IpAddr,
        place: (PoolIndex, HostNumber),
        endpoint: &Endpoint,
    ) -> Option<Difference> {
        let block = self.network.block_of(address).filter(|block| self.has(block))?;
        // A reservation that cannot be read may be of it.
        let may_be = |d: &Damaged| d.addresses.is_empty() || d.addresses.contains(&address);
        if self.held_at(place).any(is_lent) || self.files.damaged.iter().any(may_be) {
            return None;
        }
        let node = &endpoint.node;
        let (state, remedy, fix) = if let Some(reservation) = self.held_at(place).next() {
            (
                format!("held by {} here", reservation.holder),
                "delete one of both containers and start it again",
                Fix::None,
            )
        } else {
            let away = Away { host: place.1, node: node.clone(), loan: endpoint.loan };
            ("counts as free here".to_owned(), "--fix sets it aside", Fix::SetAside(block, away))
        };
        let what = format!("{address} is in use on node {node}, and {state}");
        let difference = self.difference(Kind::NotSetAside, what, remedy);
        Some(Difference { addresses: vec![address], fix, ..difference })
    }

    /// Addresses that are set aside for others.
    fn compare_lent(&self, all: &mut Vec<Difference>) {
        for reservation in &self.files.reservations {
            let Holder::Lent { node, loan, .. } = &reservation.holder else { continue };
            let stands = |address| self.view.endpoints.contains_key(address);
            let asked = loan.is_some_and(|loan| self.requests.contains_key(&loan));
            if asked || reservation.addresses.iter().any(stands) {
                continue;
            }
            let address = reservation.shown();
            let what = format!("{address} is set aside for node {node}, which does not have it");
            let remedy = "weftd takes it back within seconds; --fix does it now";
            all.push(Difference {
                addresses: reservation.addresses.clone(),
                fix: Fix::Reclaim,
                ..self.difference(Kind::LentWithoutBorrower, what, remedy)
            });
        }
    }

    fn compare_index(&self, all: &mut Vec<Difference>) {
        let mut held_in: BTreeMap<Block, BTreeSet<HostNumber>> = BTreeMap::new();
        for reservation in &self.files.reservations {
            if let Some(block) = self.block_of(reservation) {
                held_in.entry(block).or_default().insert(reservation.host);
            }
        }
        // Where the address of a damaged reservation lies only the index knows.
        let mut unknown = self.files.damaged.len();
        for (block, counts) in &self.blocks {
            let (index, held) =
                (counts.reserved as usize, held_in.get(block).map_or(0, BTreeSet::len));
            if index >= held && index - held <= unknown {
                unknown -= index - held;
                continue;
            }
            let what = format!(
                "the index counts {index} addresses of block {block} as held; there are \
                 reservations of {held}"
            );
            // A new index would not know of an address whose reservation cannot be read.
            let (fix, remedy) = if self.files.damaged.is_empty() {
                (Fix::Reindex, "--fix makes the index again")
            } else {
                (Fix::None, "put the damaged reservations right first")
            };
            all.push(Difference { fix, ..self.difference(Kind::Index, what, remedy) });
        }
    }
}

fn is_lent(reservation: &Reservation) -> bool {
    matches!(reservation.holder, Holder::Lent { .. })
}
