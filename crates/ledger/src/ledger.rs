//! The ledger: who holds which address of the blocks that this node owns in one network.
//!
//! Every method takes the network's lock for a few file operations on a memory-backed file system,
//! never across I/O to the cluster store, and gives it back before it returns. See the crate's
//! documentation for the files and for why a killed process loses nothing.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use log::warn;
use weft_files::{self as files, FileError, FileLock};
use weft_model::{Block, HostNumber, Network, PoolIndex};

use crate::holder::{Holder, HolderKey, hash};
pub use crate::index::Counts;
use crate::index::{Fresh, Index, Slot, State};
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
        let dir = NetworkDir::new(data_dir, network.name());
        files::create_private_dir(&dir.blocks())?;
        files::create_private_dir(&dir.reservations())?;
        // What of the definition decides which addresses may be handed out.
        let pools = serde_json::to_string(&network.record().pools).unwrap_or_default();
        Ok(Self { data_dir: data_dir.to_owned(), dir, network, fingerprint: hash(&pools) })
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

    /// Gives `holder` an address.
    pub fn reserve<'a>(
        &self,
        holder: &Holder,
        want: Want,
        about: impl Into<About<'a>>,
    ) -> Result<Outcome, FileError> {
        let about = about.into();
        let mut locked = self.lock()?;
        locked.drop_stale(holder)?;
        if let Some(reservation) = self.reservation(holder)? {
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
                        let kept = kept::kept_reservation(&reservation, sticky);
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
                locked.remove(&path, found.map(|(slot, _)| slot))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
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

    /// The reservations whose files' names give a holder that is `wanted`, past damaged ones. What
    /// is damaged stays set aside: the index knows its address.
    fn reservations_with(
        &self,
        wanted: impl Fn(Option<HolderKey>) -> bool,
    ) -> Result<Vec<Reservation>, FileError> {
        let dir = self.dir.reservations();
        let mut found = vec![];
        for name in files::names_in(&dir)?.iter().filter(|name| wanted(HolderKey::parse(name))) {
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

    /// The blocks that this node knows to be its own, in order.
    pub fn blocks(&self) -> Result<Vec<Block>, FileError> {
        let names = files::names_in(&self.dir.blocks())?;
        let mut blocks: Vec<Block> = names.iter().filter_map(|name| name.parse().ok()).collect();
        blocks.sort_unstable();
        Ok(blocks)
    }

    /// Returns whether this node knows `block` to be its own.
    pub fn owns(&self, block: &Block) -> bool {
        self.dir.block(block).exists()
    }

    /// Counts of free and held addresses in all owned blocks.
    pub fn counts(&self) -> Result<Counts, FileError> {
        Ok(self.lock()?.index.counts())
    }

    /// Enters a block that the cluster store says is this node's, and none of whose addresses lives
    /// on another node. Entering it twice is no change.
    pub fn add_block(&self, block: &Block) -> Result<(), FileError> {
        let mut locked = self.lock()?;
        if self.owns(block) {
            return Ok(());
        }
        let fresh: Vec<Fresh> = self.fresh(block).collect();
        locked.change(|locked| {
            let base = locked.index.append(&fresh).map_err(self.index_error())?;
            self.put_block(block, base)
        })
    }

    /// Strikes out a block none of whose addresses is held, and says whether it did. Only after
    /// this may the block be given back to the cluster.
    pub fn remove_idle_block(&self, block: &Block) -> Result<bool, FileError> {
        let mut locked = self.lock()?;
        let Some(base) = locked.base_of(block.pool(), block.first())? else {
            return Ok(false);
        };
        for (slot, _) in (base..).zip(block.hosts()) {
            let record = locked.index.get(slot).map_err(self.index_error())?;
            if record.state == State::Reserved {
                return Ok(false);
            }
        }
        locked.change(|locked| {
            files::remove(&self.dir.block(block))?;
            locked.index.remove(base, block.bits().size()).map_err(self.index_error())
        })?;
        Ok(true)
    }

    /// The owned blocks, each with how many of its addresses are free and held.
    pub fn usage(&self) -> Result<Vec<(Block, Counts)>, FileError> {
        let locked = self.lock()?;
        let mut usage = vec![];
        for block in self.blocks()? {
            let Some(base) = locked.base_of(block.pool(), block.first())? else { continue };
            let mut counts = Counts::default();
            for (slot, _) in (base..).zip(block.hosts()) {
                match locked.index.get(slot).map_err(self.index_error())?.state {
                    State::Free => counts.free += 1,
                    State::Reserved => counts.reserved += 1,
                    State::Hole | State::Withheld => {}
                }
            }
            usage.push((block, counts));
        }
        Ok(usage)
    }

    /// Moves the directory of the network, with all that is in it, to `grave`, unless a container
    /// holds an address or will: one is reserved for it and its lease runs. Returns whether it
    /// did. A process that waits for the lock meanwhile, to reserve something, gets an error and
    /// not an address of a network that is going away.
    pub fn retire(&self, grave: &Path) -> Result<bool, FileError> {
        let _locked = self.lock()?;
        for name in files::names_in(&self.dir.reservations())? {
            let in_use = match HolderKey::parse(&name) {
                // Also where the file cannot be read.
                Some(HolderKey::Attachment(_)) => true,
                Some(HolderKey::Prepared(id)) => match self.prepared(&id) {
                    Ok(prepared) => prepared.is_some_and(|prepared| !prepared.is_expired()),
                    Err(FileError::Damaged { .. }) => false,
                    Err(error) => return Err(error),
                },
                Some(HolderKey::Node | HolderKey::Lent(..) | HolderKey::Kept(_)) | None => false,
            };
            if in_use {
                return Ok(false);
            }
        }
        std::fs::rename(self.dir.root(), grave)
            .map_err(FileError::io("move away", self.dir.root()))?;
        Ok(true)
    }

    fn lock(&self) -> Result<Locked<'_>, FileError> {
        let path = self.dir.lock();
        let lock = FileLock::wait(&path)?;
        if !lock.is_current() {
            let gone = "the network was removed from this node at this moment; try again";
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, gone);
            return Err(FileError::io("lock", path)(source));
        }
        let index = match Index::open(&self.dir.index(), self.fingerprint) {
            Some(index) => index,
            None => self.rebuild()?,
        };
        Ok(Locked { ledger: self, index, _lock: lock })
    }

    fn put_block(&self, block: &Block, base: Slot) -> Result<(), FileError> {
        files::put(&self.dir.block(block), &self.scratch(), base.to_string().as_bytes())
    }

    /// Notes the sandbox of an attachment that asks again, which may be in another one, and
    /// the lease of a prepared holder.
    fn renew(
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

    /// Writes the file of a reservation. The caller holds the lock.
    fn put_reservation(&self, reservation: &Reservation) -> Result<(), FileError> {
        let path = self.dir.reservation(&reservation.holder);
        files::put(&path, &self.scratch(), &files::json::line(&path, reservation)?)
    }

    /// Path that files are written to before they are renamed into place; under the lock there is but
    /// one at a time.
    fn scratch(&self) -> PathBuf {
        self.dir.root().join(".new")
    }

    fn index_error(&self) -> impl Fn(std::io::Error) -> FileError + use<> {
        let path = self.dir.index();
        move |source| FileError::Io { action: "use", path: path.clone(), source }
    }
}

/// Takes back what `holder` holds in a network whose definition is lost. The next one to open the
/// ledger rebuilds the index.
pub fn forget(
    data_dir: &Path,
    network: &weft_model::NetworkName,
    holder: &Holder,
) -> Result<(), FileError> {
    let dir = NetworkDir::new(data_dir, network);
    if !dir.root().exists() {
        return Ok(());
    }
    let _lock = FileLock::wait(&dir.lock())?;
    files::remove(&dir.index())?;
    files::remove(&dir.reservation(holder)).map(drop)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

fn read_reservation(path: &Path) -> Result<Option<Reservation>, FileError> {
    files::json::load(path)
}

mod kept;
mod lent;
mod locked;
pub use lent::Away;
mod prepared;
mod rebuild;
pub use prepared::Settled;
mod stranded;

#[cfg(test)]
mod tests;
