//! The end of a network on this node.

use std::path::Path;

use weft_files::{self as files, FileError, FileLock};

use super::{Ledger, read_reservation};
use crate::holder::{Holder, HolderKey};
use crate::layout::NetworkDir;
use crate::reservation::Reservation;

impl Ledger {
    /// Moves the directory of the network, with all that is in it, to `tombstone`, unless a
    /// container holds an address or will: one is reserved for it and its lease runs. Returns
    /// whether it did. A process that waits for the lock meanwhile, to reserve something, gets an
    /// error and not an address of a network that is going away.
    pub fn retire(&self, tombstone: &Path) -> Result<bool, FileError> {
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
        std::fs::rename(self.dir.root(), tombstone)
            .map_err(FileError::io("move away", self.dir.root()))?;
        Ok(true)
    }
}

/// Takes back what `holder` holds in a network whose definition is lost, and returns it if its file
/// can be read. The next process to open the ledger rebuilds the index.
pub fn forget(
    data_dir: &Path,
    network: &weft_model::NetworkName,
    holder: &Holder,
) -> Result<Option<Reservation>, FileError> {
    let dir = NetworkDir::new(data_dir, network);
    if !dir.root().exists() {
        return Ok(None);
    }
    let path = dir.reservation(holder);
    let _lock = match FileLock::wait(&dir.lock()) {
        Err(error) if error.is_full() && !path.exists() => return Ok(None),
        lock => lock?,
    };
    let held = match read_reservation(&path) {
        Err(FileError::Damaged { .. }) => None,
        held => held?,
    };
    files::remove(&dir.index())?;
    files::remove(&path)?;
    Ok(held)
}
