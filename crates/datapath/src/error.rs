//! Failures of the data plane.

use std::io;
use std::path::PathBuf;

use weft_model::MacAddr;

/// A failure of the data plane.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel refused a request.
    #[error("{what}: {}{}", io::Error::from_raw_os_error(*errno), in_brackets(said.as_deref()))]
    Kernel {
        /// The request, with its object.
        what: String,
        /// The error number, positive.
        errno: i32,
        /// The kernel's own sentence, where it has one.
        said: Option<String>,
    },
    /// The kernel did not answer, or not to the end.
    #[error("{what}: {problem}")]
    NoAnswer {
        /// The request.
        what: String,
        /// The event that ended it.
        problem: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// The attempt.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// A path does not lead to a network namespace.
    #[error("{path} is not a network namespace: {reason}")]
    Netns {
        /// The path.
        path: PathBuf,
        /// The reason, or what is there instead.
        reason: String,
    },
    /// A device that is not weft's is in the way.
    #[error("{what}; {hint}")]
    Foreign {
        /// The device.
        what: String,
        /// The remedy.
        hint: String,
    },
    /// Another port of the bridge, or the bridge itself, has the MAC.
    #[error(
        "let {mac} through port {port}: in the same network {holder} has this MAC; give one of the \
         two another MAC, or another address if it follows from that"
    )]
    MacHeld {
        /// The MAC.
        mac: MacAddr,
        /// The port.
        port: String,
        /// The container or device that has it.
        holder: String,
    },
    /// The underlay cannot be determined.
    #[error("{0}")]
    Underlay(String),
    /// nftables refused a transaction, could not be run, or did not answer.
    #[error("{action} firewall rules of network {network}: {problem}")]
    Firewall {
        /// The attempt: `set`, `read` or `remove`.
        action: &'static str,
        /// The network's name.
        network: String,
        /// The message of `nft`, or the reason that it was not run.
        problem: String,
    },
}

/// The kernel's sentence as an addition to a message.
fn in_brackets(said: Option<&str>) -> String {
    said.map(|said| format!(" (kernel: {said})")).unwrap_or_default()
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

    /// Returns whether what was to be created exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Returns whether the object of the request does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }
}
