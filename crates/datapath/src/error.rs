//! What the kernel can answer other than yes.

use std::io;
use std::path::PathBuf;

/// A failure of the data plane.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel refused a request.
    #[error("{what}: {}{}", io::Error::from_raw_os_error(*errno), said.as_ref().map(|s| format!(" (kernel: {s})")).unwrap_or_default())]
    Kernel {
        /// What was asked, and of which object.
        what: String,
        /// The error number, positive.
        errno: i32,
        /// The kernel's own sentence, where it has one.
        said: Option<String>,
    },
    /// The kernel did not answer, or not to the end.
    #[error("{what}: {problem}")]
    NoAnswer {
        /// What was asked.
        what: String,
        /// What happened.
        problem: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A path does not lead to a network namespace.
    #[error("{path} is not a network namespace: {reason}")]
    Netns {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
    /// Somebody else's device is in the way.
    #[error("{what}; {hint}")]
    Foreign {
        /// What is in the way.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The underlay cannot be determined.
    #[error("{0}")]
    Underlay(String),
    /// nftables refused a transaction, or could not be run.
    #[error("set firewall rules of {network}: {problem}")]
    Firewall {
        /// The network's bridge.
        network: String,
        /// What `nft` said.
        problem: String,
    },
}

impl DatapathError {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether what was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether what was asked about is not there.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }
}
