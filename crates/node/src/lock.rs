//! Locks between the processes of a node that may be held across I/O to the cluster store.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::{NodeError, Surroundings};

/// How often to look whether a lock has become free.
const POLL: Duration = Duration::from_millis(3);

/// Waits for the advisory lock on `path`, making the file if it is missing; `None` if it was not to
/// be had within `patience`. The lock is given back when the file is closed, so also when its holder
/// dies. Waiting does not hold up the thread: an agent has other things to do.
pub async fn wait(
    surroundings: &dyn Surroundings,
    path: &Path,
    patience: Duration,
) -> Result<Option<File>, NodeError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(NodeError::io("open", path))?;
    let start = surroundings.now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock)
                if surroundings.now().saturating_sub(start) > patience =>
            {
                return Ok(None);
            }
            Err(TryLockError::WouldBlock) => surroundings.sleep(POLL).await,
            Err(TryLockError::Error(error)) => return Err(NodeError::io("lock", path)(error)),
        }
    }
}
