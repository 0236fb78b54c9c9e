//! Small pieces of file handling that everything on a node is made of: locks between processes,
//! atomic replacement, identities of files, and readers with typed errors.
//!
//! - [`lock`]: advisory locks between the processes of a node.
//! - [`inode`]: device and inode number, by which a file or a network namespace is the same one.
//! - [`json`]: JSON files, read and replaced.

pub mod inode;
pub mod json;
pub mod lock;

pub use inode::Inode;
pub use lock::FileLock;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Errors of the node's own files.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// The action that failed: "create", "lock", ...
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No space, no inode or no quota is left.
    #[error(
        "{action} {path}: the file system of {dir} is full; free space or inodes there \
         (`df {dir}`, `df -i {dir}`) and try again", path = path.display(), dir = dir.display()
    )]
    Full {
        /// The action that failed: "create", "write", ...
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
    },
    /// Another process holds the lock and does not release it.
    #[error(
        "{path} has been locked by another process for 10 s; find it with `fuser {path}`: it is \
         stopped or stuck", path = path.display()
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// Another process does lasting work under the lock.
    #[error(
        "another process (pid {pid}, with {path} locked) has been at the same work for {} s; try \
         again when it has ended, or end it if it is stuck", since.as_secs(), path = path.display()
    )]
    AtWork {
        /// The lock.
        path: PathBuf,
        /// The process that has it.
        pid: String,
        /// The time since it took the lock.
        since: Duration,
    },
    /// A file does not hold what weft writes there.
    #[error(
        "{path} is damaged ({reason}); see the section on damaged files in the operations guide"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
}

impl FileError {
    /// Wraps an error of the file system, met while doing `action` on `path`.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let dir = path.parent().unwrap_or(&path).to_owned();
                Self::Full { action, path, dir }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Returns whether there was no room on the file system.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Returns whether the file, or a directory above it, does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// Creates `path` and its parents, readable by root alone. A directory that exists is left as it
/// is.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    let create = DirBuilder::new().recursive(true).mode(0o700).create(path);
    create.map_err(FileError::io("create", path))
}

/// Puts `content` at `path` in one atomic step (`rename(2)`), by way of `scratch` in the same file
/// system. The caller holds a lock, so that one scratch name serves all.
pub fn put(path: &Path, scratch: &Path, content: &[u8]) -> Result<(), FileError> {
    stage(scratch, content)?;
    place(path, scratch)
}

/// Writes `content` to `scratch`: all of [`put`] that takes space. After an error nothing is left
/// there.
pub fn stage(scratch: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(scratch)
        .map_err(FileError::io("create", scratch))?;
    file.write_all(content).map_err(|error| {
        // What was written before the file system was full would keep it so.
        let _ = fs::remove_file(scratch);
        FileError::io("write", scratch)(error)
    })
}

/// Puts what was [staged](stage) in `scratch` at `path`, in one atomic step.
pub fn place(path: &Path, scratch: &Path) -> Result<(), FileError> {
    fs::rename(scratch, path).map_err(FileError::io("create", path))
}

/// Makes the file at `draft` the one at `path`, unless there is one already; the draft is gone
/// afterwards. Of several processes one succeeds, and none sees a file that is half written.
pub fn place_first(draft: &Path, path: &Path) -> Result<(), FileError> {
    let linked = fs::hard_link(draft, path);
    remove(draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(FileError::io("create", path)(error))
        }
        _ => Ok(()),
    }
}

/// Numbers the scratch files of this process: several threads may replace one file.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Puts `content` at `path` in one atomic step, creating the directories above it. Needs no lock:
/// the scratch file is named after this process.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    create_private_dir(path.parent().unwrap_or(path))?;
    let mut scratch = path.to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    scratch.set_extension(format!("{}.{number}.tmp", std::process::id()));
    put(path, &scratch, content)
}

/// Content of `path`; `None` if it does not exist.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io("read", path)(error)),
    }
}

/// Removes `path`. Returns whether it was there.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::io("remove", path)(error)),
    }
}

/// Names in directory `path`, in no order; none if it does not exist. Names that are not Unicode
/// are left out: weft writes none.
pub fn names_in(path: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(FileError::io("read", path)(error)),
    };
    let mut names = vec![];
    for entry in entries {
        let entry = entry.map_err(FileError::io("read", path))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_and_leaves_no_scratch_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        replace(&path, b"1").unwrap();
        replace(&path, b"2").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"2");
        assert_eq!(names_in(path.parent().unwrap()).unwrap(), ["b.json"]);
    }

    #[test]
    fn absent_files_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent");
        assert_eq!(read(&path).unwrap(), None);
        assert!(!remove(&path).unwrap());
        assert!(names_in(&path).unwrap().is_empty());
    }
}
