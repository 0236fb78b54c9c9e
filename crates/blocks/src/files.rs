//! Small pieces of file handling that the ledger is made of.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::LedgerError;

/// How long to wait for a lock that others hold for microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes `path` and its parents, for root's eyes only.
pub(crate) fn create_dir(path: &Path) -> Result<(), LedgerError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(LedgerError::io("create", path))
}

/// Opens `path` for reading and writing, making it if it is missing.
pub(crate) fn open_or_create(path: &Path) -> Result<File, LedgerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LedgerError::io("open", path))
}

/// Waits for the advisory lock on `path`, making the file if it is missing. It is held for
/// microseconds, so one that is not to be had for long is held by a process that does not run.
pub(crate) fn lock(path: &Path) -> Result<File, LedgerError> {
    let file = open_or_create(path)?;
    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(LedgerError::io("lock", path)(error)),
            Err(TryLockError::WouldBlock) if start.elapsed() > PATIENCE => {
                return Err(LedgerError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

/// Whether `file` is still what is at `path`.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (open, there) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    matches!((open, there), (Ok(open), Ok(there)) if open == there)
}

/// Puts `content` at `path` in one atomic step, by way of `scratch` in the same file system. The
/// caller holds a lock, so one scratch name serves all.
pub(crate) fn put(path: &Path, scratch: &Path, content: &[u8]) -> Result<(), LedgerError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(scratch)
        .map_err(LedgerError::io("create", scratch))?;
    file.write_all(content).map_err(LedgerError::io("write", scratch))?;
    fs::rename(scratch, path).map_err(LedgerError::io("create", path))
}

/// The content of `path`; nothing if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, LedgerError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::io("read", path)(error)),
    }
}

/// Removes `path`; says whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, LedgerError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LedgerError::io("remove", path)(error)),
    }
}

/// The names in directory `path`, in no order; none if it does not exist. Names that are not
/// Unicode are none of ours.
pub(crate) fn names_in(path: &Path) -> Result<Vec<String>, LedgerError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(LedgerError::io("read", path)(error)),
    };
    let mut names = vec![];
    for entry in entries {
        let entry = entry.map_err(LedgerError::io("read", path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
