//! The lock of an attachment: calls about one attachment take turns, so that a DEL does not free
//! the address that an ADD has just got, and an ADD that fails does not free that of another. It
//! also tells that a call is under way, to programs that look for what killed calls have left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::warn;
use weft_files::{FileError, FileLock, create_private_dir, lock, names_in};
use weft_model::{Attachment, device};

/// Time that no call takes that is not stuck. The longest is an ADD of a network that is new to a
/// node with a slow store: 20 s for the lock of its devices, 10 s for the firewall, twice (for the
/// node's own address and for the container's) 10 s for the lock of claims and 13 s to borrow, and
/// some ten requests to the store of 5 s each.
const LONGEST_CALL: Duration = Duration::from_secs(150);

/// The lock of an attachment. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct CallLock(Option<FileLock>);

fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("calls")
}

fn path(data_dir: &Path, attachment: &Attachment) -> PathBuf {
    dir(data_dir).join(device::host_end(attachment))
}

impl CallLock {
    /// Waits until no other call about the attachment is under way, for `LONGEST_CALL` at most.
    pub fn wait(data_dir: &Path, attachment: &Attachment) -> Result<Self, FileError> {
        Ok(Self(take(data_dir, attachment, |path| {
            FileLock::wait_for_work(path, LONGEST_CALL).map(Some)
        })?))
    }

    /// As [`wait`](Self::wait), for a call that only frees. A file system that is full must not
    /// stop one, nor one that is read-only: where the file cannot be made no other call has it.
    pub fn wait_to_free(data_dir: &Path, attachment: &Attachment) -> Result<Self, FileError> {
        match Self::wait(data_dir, attachment) {
            Err(error) if !matches!(error, FileError::AtWork { .. }) => {
                warn!("{attachment}: freed without a lock: {error}");
                Ok(Self(None))
            }
            lock => lock,
        }
    }

    /// The lock, to free something; `None` while a call about the attachment is under way.
    pub fn try_to_free(
        data_dir: &Path,
        attachment: &Attachment,
    ) -> Result<Option<Self>, FileError> {
        match take(data_dir, attachment, FileLock::try_take) {
            Err(error) if error.is_full() => Ok(Some(Self(None))),
            lock => Ok(lock?.map(|lock| Self(Some(lock)))),
        }
    }

    /// Returns whether a call about the attachment is under way.
    pub fn is_held(data_dir: &Path, attachment: &Attachment) -> bool {
        lock::is_held(&path(data_dir, attachment))
    }

    /// Removes the files of calls that were killed.
    pub fn tidy(data_dir: &Path) -> Result<(), FileError> {
        for name in names_in(&dir(data_dir))? {
            let path = dir(data_dir).join(name);
            // Opened, not created: a call may remove its file at this moment.
            if !lock::is_held(&path)
                && let Some(lock) = FileLock::try_take(&path)?
                && lock.is_current()
            {
                drop(Self(Some(lock)));
            }
        }
        Ok(())
    }
}

/// Takes the lock by `attempt`, until it is that of the file at its path.
fn take(
    data_dir: &Path,
    attachment: &Attachment,
    attempt: impl Fn(&Path) -> Result<Option<FileLock>, FileError>,
) -> Result<Option<FileLock>, FileError> {
    let path = path(data_dir, attachment);
    loop {
        create_private_dir(&dir(data_dir))?;
        match attempt(&path) {
            Ok(None) => return Ok(None),
            // The call that had it before has removed the file.
            Ok(Some(lock)) if lock.is_current() => return Ok(Some(lock)),
            Ok(Some(_)) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
}

impl Drop for CallLock {
    fn drop(&mut self) {
        if let Some(lock) = &self.0 {
            let _ = std::fs::remove_file(lock.path());
        }
    }
}
