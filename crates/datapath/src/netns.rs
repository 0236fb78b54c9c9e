//! Network namespaces.
//!
//! A thread that has changed its namespace must never run anything else: what an executor would put
//! on it next runs in the wrong namespace, silently. So the change happens on a thread of its own,
//! around a closure that cannot wait for anything asynchronous, and the thread ends with it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use crate::DatapathError;

/// The namespace of the calling thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// An open network namespace. Two are equal if they are the same namespace, by whatever path.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
}

impl Netns {
    /// Opens the namespace behind `path`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DatapathError> {
        let path = path.into();
        let refuse = |reason: String| DatapathError::Netns { path: path.clone(), reason };
        // Opening a pipe would otherwise wait for somebody to write to it.
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => refuse("nothing is there".into()),
            _ => refuse(error.to_string()),
        })?;
        let stat = nix::sys::statfs::fstatfs(&file).map_err(|error| refuse(error.to_string()))?;
        // nsfs holds namespaces of all kinds; setns tells them apart later.
        if stat.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
            return Err(refuse("it is an ordinary file or directory".into()));
        }
        let meta = file.metadata().map_err(|error| refuse(error.to_string()))?;
        Ok(Self { identity: (meta.dev(), meta.ino()), file, path })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, DatapathError> {
        Self::open(CURRENT)
    }

    /// Device and inode, which are the namespace's for as long as it lives.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` in the namespace, on a thread that ends with it. A panic of `work` becomes an
    /// error.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, DatapathError> {
        let fd = self.file.as_fd();
        let refuse = |reason: &dyn std::fmt::Display| DatapathError::Netns {
            path: self.path.clone(),
            reason: reason.to_string(),
        };
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                    enter(fd)?;
                    Ok(work())
                });
            let thread = thread.map_err(|error| refuse(&error))?;
            match thread.join() {
                Ok(result) => result.map_err(|error: nix::Error| refuse(&error)),
                Err(_) => Err(refuse(&"the work in it panicked")),
            }
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place, on a thread that ends right after")]
fn enter(fd: BorrowedFd<'_>) -> nix::Result<()> {
    nix::sched::setns(fd, CloneFlags::CLONE_NEWNET)
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_named() {
        let error = Netns::open("/nonexistent/ns").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ns") && error.contains("nothing is there"), "{error}");
        let error = Netns::open("/etc/passwd").unwrap_err().to_string();
        assert!(error.contains("ordinary file"), "{error}");
        let pipe = std::env::temp_dir().join(format!("weft-netns-{}", std::process::id()));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Netns::open(&pipe).unwrap_err().to_string();
        std::fs::remove_file(pipe).unwrap();
        assert!(error.contains("ordinary file"), "{error}");
    }

    #[test]
    fn a_namespace_equals_itself_by_any_path() {
        let here = Netns::current().unwrap();
        assert_eq!(here, Netns::open("/proc/self/ns/net").unwrap());
    }
}
