//! Paths under the node's data directory.

use std::path::{Path, PathBuf};

use weft_files::{self as files, FileError};
use weft_model::{Block, LoanId, NetworkName};

use crate::Holder;

/// The directory of all networks that this node has.
pub fn networks_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("networks")
}

/// Returns whether the files below `data_dir` hold a block or an address of any network, one that
/// is being removed included.
pub fn holds_anything(data_dir: &Path) -> Result<bool, FileError> {
    let networks = networks_dir(data_dir);
    for name in files::names_in(&networks)? {
        let dir = NetworkDir { root: networks.join(name) };
        for held in [dir.blocks(), dir.reservations(), dir.returns()] {
            if !files::names_in(&held)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The paths of one network on this node.
#[derive(Debug, Clone)]
pub struct NetworkDir {
    root: PathBuf,
}

impl NetworkDir {
    /// The directory of `network` under `data_dir`.
    pub fn new(data_dir: &Path, network: &NetworkName) -> Self {
        Self { root: networks_dir(data_dir).join(network.as_str()) }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The network's definition, as last read from the cluster store.
    pub fn definition(&self) -> PathBuf {
        self.root.join("network.json")
    }

    /// The data plane of this node as it was last made.
    pub fn segment(&self) -> PathBuf {
        self.root.join("segment.json")
    }

    /// Locked by the one process that is making or removing the network's devices.
    pub fn segment_lock(&self) -> PathBuf {
        self.root.join("segment.lock")
    }

    /// Locked by the one process that is claiming a block.
    pub fn claim_lock(&self) -> PathBuf {
        self.root.join("claim.lock")
    }

    /// Held by the process that is borrowing an address, for as long as it is at it.
    pub fn borrowing(&self, loan: LoanId) -> PathBuf {
        self.borrowings().join(loan.to_string())
    }

    /// Directory of the files of processes that are borrowing.
    pub fn borrowings(&self) -> PathBuf {
        self.root.join("borrowing")
    }

    /// File that names the reservation of a loan.
    pub(crate) fn loan(&self, loan: LoanId) -> PathBuf {
        self.loans().join(loan.to_string())
    }

    pub(crate) fn loans(&self) -> PathBuf {
        self.root.join("loans")
    }

    pub(crate) fn returns(&self) -> PathBuf {
        self.root.join("returns")
    }

    pub(crate) fn returned(&self, loan: LoanId) -> PathBuf {
        self.returns().join(loan.to_string())
    }

    /// Notes of blocks and loans that were lost, or may have been.
    pub(crate) fn losses(&self) -> PathBuf {
        self.root.join("stranded")
    }

    pub(crate) fn stranded(&self, block: &Block) -> PathBuf {
        self.losses().join(block.to_string())
    }

    pub(crate) fn void(&self, loan: LoanId) -> PathBuf {
        self.losses().join(loan.to_string())
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    pub(crate) fn block(&self, block: &Block) -> PathBuf {
        self.blocks().join(block.to_string())
    }

    /// Directory of the reservations, a file each.
    pub fn reservations(&self) -> PathBuf {
        self.root.join("reservations")
    }

    pub(crate) fn reservation(&self, holder: &Holder) -> PathBuf {
        self.reservations().join(holder.file_name())
    }
}
