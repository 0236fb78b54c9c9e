//! Network namespaces.
//!
//! A thread that has changed its namespace must never run anything else: what an executor would put
//! on it next runs in the wrong namespace, silently. So the change lasts for one closure, which
//! cannot wait for anything asynchronous. It happens on a thread that ends with the closure; or, to
//! save a short-lived process the thread, on the calling one, which then comes back or ends the
//! process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use weft_files::Inode;

use crate::DatapathError;

/// The namespace of the calling thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// The thread that enters a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A new thread, which ends with the work. For processes that serve others.
    NewThread,
    /// The calling thread, which comes back after the work: some twenty system calls less. The
    /// process is aborted if the way back fails, and threads that the work starts stay behind in
    /// the namespace; so it is for short-lived processes, and for work that starts none.
    CallingThread,
}

/// An open network namespace. Two are equal if they are the same namespace, by whatever path.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    identity: Inode,
}

impl Netns {
    /// Opens the namespace behind `path`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DatapathError> {
        let path = path.into();
        let refuse = |reason: String| DatapathError::Netns { path: path.clone(), reason };
        // Opening a pipe would otherwise wait for a writer.
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
        let identity = Inode::of(&file).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { file, path, identity })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, DatapathError> {
        Self::open(CURRENT)
    }

    /// Device and inode, unique among the namespaces that live.
    pub fn identity(&self) -> Inode {
        self.identity
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` in the namespace.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Netns`] if the namespace cannot be entered (`setns(2)`), or if `work`
    /// panics on a new thread; on the calling thread a panic goes on once the thread is back.
    pub fn run<T: Send>(
        &self,
        entry: Entry,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, DatapathError> {
        match entry {
            Entry::NewThread => self.run_on_new_thread(work),
            Entry::CallingThread => self.run_here(work),
        }
    }

    fn run_on_new_thread<T: Send>(
        &self,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, DatapathError> {
        let fd = self.file.as_fd();
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                    enter(fd)?;
                    Ok(work())
                });
            let thread = thread.map_err(|error| self.refuse(&error))?;
            match thread.join() {
                Ok(result) => result.map_err(|error: nix::Error| self.refused(error)),
                Err(_) => Err(self.refuse(&"the work in it panicked")),
            }
        })
    }

    fn run_here<T>(&self, work: impl FnOnce() -> T) -> Result<T, DatapathError> {
        let failed = |source| DatapathError::Io { what: format!("open {CURRENT}"), source };
        let home = File::open(CURRENT).map_err(failed)?;
        enter(self.file.as_fd()).map_err(|error| self.refused(error))?;
        let _back = Back(&home);
        Ok(work())
    }

    /// The error for setns(2), which alone tells the kinds of namespaces apart.
    fn refused(&self, error: nix::Error) -> DatapathError {
        match error {
            nix::Error::EINVAL => self.refuse(&"it is a namespace of another kind"),
            error => self.refuse(&error),
        }
    }

    fn refuse(&self, reason: &dyn std::fmt::Display) -> DatapathError {
        DatapathError::Netns { path: self.path.clone(), reason: reason.to_string() }
    }
}

/// Brings the thread back to a namespace when it is dropped, after a panic too.
struct Back<'a>(&'a File);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        // Whatever this thread does next would happen in the wrong namespace.
        if let Err(error) = enter(self.0.as_fd()) {
            log::error!("return to the process's own network namespace: {error}; aborting");
            std::process::abort();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place, on a thread that ends or comes back right after"
)]
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
    fn refuses_what_is_no_namespace() {
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
    fn names_a_namespace_of_another_kind() {
        let uts = Netns::open("/proc/self/ns/uts").unwrap();
        for entry in [Entry::NewThread, Entry::CallingThread] {
            let error = uts.run(entry, || ()).unwrap_err().to_string();
            assert!(error.contains("/proc/self/ns/uts is not a network namespace"), "{error}");
            assert!(error.contains("namespace of another kind"), "{error}");
        }
    }

    #[test]
    fn equals_itself_by_any_path() {
        let here = Netns::current().unwrap();
        assert_eq!(here, Netns::open("/proc/self/ns/net").unwrap());
    }
}
