//! Advisory locks between the processes of a node (`flock(2)`).
//!
//! A lock is released when its file is closed, so also when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{FileError, Inode};

/// Limit for waiting for a lock that others hold for microseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An advisory lock, held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// A file that can be locked.
#[derive(Debug)]
pub struct Lockable {
    file: File,
    path: PathBuf,
}

impl Lockable {
    /// Opens the file at `path`, creating it if it is missing.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(FileError::io("open", path))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes the lock; gives the file back if another process holds it.
    pub fn try_lock(self) -> Result<Result<FileLock, Self>, FileError> {
        match self.file.try_lock() {
            Ok(()) => Ok(Ok(FileLock { file: self.file, path: self.path })),
            Err(TryLockError::WouldBlock) => Ok(Err(self)),
            Err(TryLockError::Error(error)) => Err(FileError::io("lock", self.path)(error)),
        }
    }
}

impl FileLock {
    /// Waits for the lock on `path`, creating the file if it is missing. Blocks the thread. It is
    /// held for microseconds, so one that stays held for 10 s belongs to a process that is stuck.
    pub fn wait(path: &Path) -> Result<Self, FileError> {
        let locked = |path: &Path| FileError::Locked { path: path.to_owned() };
        Self::wait_at_most(path, TIMEOUT)?.ok_or_else(|| locked(path))
    }

    /// Waits for a lock that others hold for as long as their work takes, at most for `limit`, and
    /// notes this process in the file.
    pub fn wait_for_work(path: &Path, limit: Duration) -> Result<Self, FileError> {
        let Some(mut lock) = Self::wait_at_most(path, limit)? else {
            let pid = std::fs::read_to_string(path).unwrap_or_default();
            // It was written with the note.
            let noted = std::fs::metadata(path).and_then(|file| file.modified());
            let since = noted.ok().and_then(|noted| noted.elapsed().ok()).unwrap_or(limit);
            let pid = if pid.is_empty() { "unknown".into() } else { pid };
            return Err(FileError::AtWork { path: path.to_owned(), pid, since });
        };
        // On a full file system the error of a call that waits has no pid.
        let _ = lock.write(&std::process::id().to_string());
        Ok(lock)
    }

    /// The lock, unless another process holds it for longer than `limit`.
    fn wait_at_most(path: &Path, limit: Duration) -> Result<Option<Self>, FileError> {
        let mut file = Lockable::open(path)?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            file = match file.try_lock()? {
                Ok(lock) => return Ok(Some(lock)),
                Err(_) if start.elapsed() > limit => return Ok(None),
                Err(file) => file,
            };
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    /// Takes the lock on `path`, creating the file if it is missing; `None` if another process
    /// holds it.
    pub fn try_take(path: &Path) -> Result<Option<Self>, FileError> {
        Ok(Lockable::open(path)?.try_lock()?.ok())
    }

    /// Returns whether the locked file is still the one at its path: who held the lock before may
    /// have removed it.
    pub fn is_current(&self) -> bool {
        Inode::of(&self.file).ok().is_some_and(|own| Inode::at(&self.path) == Some(own))
    }

    /// Replaces the content of the locked file with `text`, for people who read it.
    pub fn write(&mut self, text: &str) -> Result<(), FileError> {
        let failed = |error| FileError::io("write", &self.path)(error);
        self.file.set_len(0).map_err(failed)?;
        self.file.write_all(text.as_bytes()).map_err(failed)
    }

    /// Path of the locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns whether a process holds the lock on `path`. A file that is missing is not locked; one
/// that cannot be read counts as locked.
pub fn is_held(path: &Path) -> bool {
    match File::open(path) {
        // Closing the file releases the lock at once.
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path));
        let lock = FileLock::wait(&path).unwrap();
        assert!(is_held(&path) && FileLock::try_take(&path).unwrap().is_none());
        drop(lock);
        assert!(!is_held(&path) && FileLock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn names_the_process_that_works_under_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::wait_for_work(&path, Duration::ZERO).unwrap();
        let error = FileLock::wait_for_work(&path, Duration::ZERO).unwrap_err().to_string();
        let named = format!("(pid {}, with {} locked)", std::process::id(), path.display());
        assert!(error.contains(&named) && error.contains("for 0 s"), "{error}");
        drop(lock);
        FileLock::wait_for_work(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_not_current() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::wait(&path).unwrap();
        assert!(lock.is_current());
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.is_current());
        let _other = FileLock::wait(&path).unwrap();
        assert!(!lock.is_current());
    }
}
