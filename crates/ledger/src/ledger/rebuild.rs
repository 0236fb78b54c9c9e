//! Making the index again from the blocks and the reservations.

use std::collections::HashMap;
use std::path::PathBuf;

use log::warn;
use weft_files::{self as files, FileError};
use weft_model::Block;

use super::{Ledger, Locked, read_reservation};
use crate::holder::{HolderKey, hash};
use crate::index::{Fresh, Index, State};

impl Ledger {
    /// Makes the index again from the blocks and the reservations. The caller holds the lock.
    pub(super) fn rebuild(&self) -> Result<Index, FileError> {
        let path = self.dir.index();
        let history = Index::salvage(&path);
        let blocks = self.blocks()?;
        let mut fresh: Vec<Fresh> = blocks.iter().flat_map(|block| self.fresh(block)).collect();
        let place: HashMap<(u8, u64), usize> =
            fresh.iter().enumerate().map(|(i, f)| ((f.pool.get(), f.host.get()), i)).collect();
        let dir = self.dir.reservations();
        let mut claims = HashMap::new();
        let mut incomplete = false;
        for name in files::names_in(&dir)? {
            let holder = hash(&name);
            let at = match read_reservation(&dir.join(&name)) {
                Ok(None) => continue,
                Ok(Some(r)) => Some((r.pool.get(), r.host.get())),
                Err(FileError::Damaged { path, reason }) => {
                    warn!("{} is damaged ({reason})", path.display());
                    let old = history.values();
                    let known = old
                        .filter(|r| r.state == State::Reserved)
                        .find(|r| r.holder == holder)
                        .map(|r| (r.pool, r.host))
                        .or_else(|| place_in(&files::read(&path).ok()??));
                    incomplete |= known.is_none();
                    known
                }
                Err(error) => return Err(error),
            };
            if let Some(i) = at.and_then(|at| place.get(&at)) {
                let claim = Precedence::of(&name);
                if claims.get(i).is_none_or(|other| *other < claim) {
                    claims.insert(*i, claim);
                    fresh[*i].state = State::Reserved;
                    fresh[*i].holder = holder;
                }
            }
        }
        let bytes = Index::rebuild(&fresh, &history, self.fingerprint, incomplete);
        let mut base = 0;
        for block in &blocks {
            self.put_block(block, base)?;
            base += u32::try_from(block.bits().size()).unwrap_or(0);
        }
        files::put(&path, &self.scratch(), &bytes)?;
        Index::open(&path, self.fingerprint).ok_or_else(|| FileError::Damaged {
            path,
            reason: "it was just rebuilt and cannot be read".into(),
        })
    }

    /// Removes the index; the next process to open the ledger makes it again.
    pub fn drop_index(&self) -> Result<(), FileError> {
        let _locked = self.lock()?;
        files::remove(&self.dir.index()).map(drop)
    }

    /// The slots of a block in which nothing is reserved yet.
    pub(super) fn fresh(&self, block: &Block) -> impl Iterator<Item = Fresh> + use<'_> {
        let block = *block;
        let pool = self.network.pool(block.pool()).filter(|pool| block.belongs_to(pool));
        block.hosts().map(move |host| {
            let assignable = pool.is_some_and(|pool| pool.is_assignable(host));
            let state = if assignable { State::Free } else { State::Withheld };
            Fresh { pool: block.pool(), host, state, holder: 0 }
        })
    }
}

/// The pool and host number in a reservation that cannot be read, if the damage spared them.
fn place_in(content: &[u8]) -> Option<(u8, u64)> {
    let text = String::from_utf8_lossy(content);
    let number = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        // One that goes to the end of the text may have lost digits.
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse::<u64>().ok()
    };
    Some((number("\"pool\":")?.try_into().ok()?, number("\"host\":")?))
}

impl Locked<'_> {
    /// Refuses to go on while a reservation exists whose address nothing tells: any address that
    /// counts as free may be its container's.
    pub(super) fn require_complete(&mut self) -> Result<(), FileError> {
        let Some(path) = self.unplaced()? else { return Ok(()) };
        let reason = "its address is unknown, since the index was lost too, and no other address \
                      of the network is given out meanwhile: delete the container in its name, or \
                      remove the file if that is gone";
        Err(FileError::Damaged { path, reason: reason.into() })
    }

    /// The file of a reservation that cannot be read and that no slot is known to be held by.
    /// Rebuilds an index that lacked one if all of them are gone, or can be read again.
    pub(super) fn unplaced(&mut self) -> Result<Option<PathBuf>, FileError> {
        if !self.index.is_incomplete() {
            return Ok(None);
        }
        let dir = self.ledger.dir.reservations();
        for name in files::names_in(&dir)? {
            let path = dir.join(&name);
            let is_damaged = matches!(read_reservation(&path), Err(FileError::Damaged { .. }));
            if is_damaged {
                let held = self.index.find_holder(hash(&name));
                let place = files::read(&path)?.and_then(|content| place_in(&content));
                if place.is_none() && held.map_err(self.ledger.index_error())?.is_none() {
                    return Ok(Some(path));
                }
            }
        }
        self.index = self.ledger.rebuild()?;
        Ok(None)
    }
}

/// Precedence of two files that name one address: what was lent is in use elsewhere, and what is
/// kept or prepared is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    Kept,
    Prepared,
    Held,
    Lent,
}

impl Precedence {
    /// By the name of the file.
    fn of(name: &str) -> Self {
        match HolderKey::parse(name) {
            Some(HolderKey::Lent(..)) => Self::Lent,
            Some(HolderKey::Kept(_)) => Self::Kept,
            Some(HolderKey::Prepared(_)) => Self::Prepared,
            Some(HolderKey::Node | HolderKey::Attachment(_)) | None => Self::Held,
        }
    }
}
