//! The ledger: who holds which address of the blocks that this node owns in one network.
//!
//! Every method takes the network's lock for a few file operations on a memory-backed file system,
//! never across I/O to the cluster store, and gives it back before it returns. See the crate's
//! documentation for the files and for why a killed process loses nothing.

mod blocks;
mod kept;
mod lent;
mod locked;
mod prepared;
mod rebuild;
mod reserving;
mod retire;
mod returns;
mod stranded;

pub use lent::Away;
pub use prepared::Settled;
pub use retire::forget;

use std::path::{Path, PathBuf};

use log::warn;
use weft_files::{self as files, FileError, FileLock};
use weft_model::{Block, HostNumber, Network, PoolIndex};

use crate::holder::{Holder, hash};
pub use crate::index::Counts;
use crate::index::Index;
use crate::layout::NetworkDir;
use crate::reservation::{Reservation, Sandbox, Sticky};

/// The wanted address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The one that has been free for longest.
    Any,
    /// This one and no other.
    Exactly(PoolIndex, HostNumber),
}

/// Notes on a holder.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// Its sandbox, by which it is known whether it is still there.
    pub sandbox: Option<&'a Sandbox>,
    /// The identity that keeps its address.
    pub sticky: Option<&'a Sticky>,
}

impl<'a> From<Option<&'a Sandbox>> for About<'a> {
    fn from(sandbox: Option<&'a Sandbox>) -> Self {
        Self { sandbox, sticky: None }
    }
}

/// Outcome of a request for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The holder has an address: a new one, or the one it had before. A holder that asks again for
    /// another address than it has gets the one it has.
    Held(Reservation),
    /// No owned block has a free address.
    NoRoom,
    /// The address is held by somebody else.
    Taken(Holder),
    /// The address lies in a block that this node does not own.
    NotOwned(Block),
    /// The network never hands out this address: gateway, excluded, out of range.
    Withheld,
    /// The holder has an address that is no longer this node's to give: its block went to another
    /// node.
    Stranded(Reservation),
}

/// The open ledger of one network on this node.
#[derive(Debug)]
pub struct Ledger {
    data_dir: PathBuf,
    dir: NetworkDir,
    network: Network,
    fingerprint: u64,
}

/// The ledger while its lock is held.
struct Locked<'a> {
    ledger: &'a Ledger,
    index: Index,
    _lock: FileLock,
}

impl Ledger {
    /// Opens the ledger of `network` under `data_dir`, making its directories where they are
    /// missing.
    pub fn open(data_dir: &Path, network: Network) -> Result<Self, FileError> {
        let ledger = Self::open_to_free(data_dir, network);
        files::create_private_dir(&ledger.dir.blocks())?;
        files::create_private_dir(&ledger.dir.reservations())?;
        Ok(ledger)
    }

    /// Opens the ledger of `network` under `data_dir` to free addresses: where directories are
    /// missing there is nothing to free, and on a full file system none can be made.
    pub fn open_to_free(data_dir: &Path, network: Network) -> Self {
        let dir = NetworkDir::new(data_dir, network.name());
        // What of the definition decides which addresses may be handed out.
        let pools = serde_json::to_string(&network.record().pools).unwrap_or_default();
        Self { data_dir: data_dir.to_owned(), dir, network, fingerprint: hash(&pools) }
    }

    /// Paths of the ledger's files.
    pub fn dir(&self) -> &NetworkDir {
        &self.dir
    }

    /// The data directory of the node.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The network's definition, as the ledger was opened with it.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The reservation of `holder`. Takes no lock: one file tells.
    pub fn reservation(&self, holder: &Holder) -> Result<Option<Reservation>, FileError> {
        read_reservation(&self.dir.reservation(holder))
    }

    /// All reservations. A damaged file costs its own reservation only and is reported in the log.
    pub fn reservations(&self) -> Result<Vec<Reservation>, FileError> {
        let mut all = self.reservations_with(|_| true)?;
        all.sort_by_key(|reservation| (reservation.pool, reservation.host));
        Ok(all)
    }

    /// The reservations whose files have a name that is `wanted`, past damaged ones. What is
    /// damaged stays set aside: the index knows its address.
    fn reservations_with(
        &self,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Reservation>, FileError> {
        let dir = self.dir.reservations();
        let mut found = vec![];
        for name in files::names_in(&dir)?.iter().filter(|name| wanted(name)) {
            match read_reservation(&dir.join(name)) {
                Ok(reservation) => found.extend(reservation),
                Err(FileError::Damaged { path, reason }) => {
                    warn!("{} is damaged ({reason})", path.display());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn lock(&self) -> Result<Locked<'_>, FileError> {
        let lock = self.lock_files()?;
        let index = match Index::open(&self.dir.index(), self.fingerprint) {
            Some(index) => index,
            None => self.rebuild()?,
        };
        Ok(Locked { ledger: self, index, _lock: lock })
    }

    /// The ledger, locked to free something: without its index if that is to be rebuilt and there
    /// is no room for it. What is unlinked then is free as soon as there is.
    fn lock_to_free(&self) -> Result<Result<Locked<'_>, FileLock>, FileError> {
        let lock = self.lock_files()?;
        let index = match Index::open(&self.dir.index(), self.fingerprint) {
            Some(index) => index,
            None => match self.rebuild() {
                Err(error) if error.is_full() => return Ok(Err(lock)),
                rebuilt => rebuilt?,
            },
        };
        Ok(Ok(Locked { ledger: self, index, _lock: lock }))
    }

    fn lock_files(&self) -> Result<FileLock, FileError> {
        let path = self.dir.lock();
        let lock = FileLock::wait(&path)?;
        if lock.is_current() {
            return Ok(lock);
        }
        let gone = "the network was removed from this node at this moment; try again";
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, gone);
        Err(FileError::io("lock", path)(source))
    }

    /// Writes the file of a reservation. The caller holds the lock.
    fn put_reservation(&self, reservation: &Reservation) -> Result<(), FileError> {
        self.stage_reservation(reservation)?;
        self.place_reservation(reservation)
    }

    /// The part of writing a reservation's file that takes space. It comes before the index is
    /// marked dirty: on a full file system nothing has changed then.
    fn stage_reservation(&self, reservation: &Reservation) -> Result<(), FileError> {
        let path = self.dir.reservation(&reservation.holder);
        files::stage(&self.scratch(), &files::json::line(&path, reservation)?)
    }

    fn place_reservation(&self, reservation: &Reservation) -> Result<(), FileError> {
        files::place(&self.dir.reservation(&reservation.holder), &self.scratch())
    }

    /// Path that files are written to before they are renamed into place; under the lock there is
    /// but one at a time.
    fn scratch(&self) -> PathBuf {
        self.dir.root().join(".new")
    }

    fn index_error(&self) -> impl Fn(std::io::Error) -> FileError + use<> {
        let path = self.dir.index();
        move |source| FileError::io("use", &path)(source)
    }
}

fn read_reservation(path: &Path) -> Result<Option<Reservation>, FileError> {
    files::json::load(path)
}

#[cfg(test)]
mod tests;
