//! Whether this node's agent runs: it holds a lock for as long as it lives.

use std::fs::File;
use std::path::{Path, PathBuf};

/// The file that a running agent holds locked.
pub fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("weftd.lock")
}

/// Whether an agent runs with this data directory.
pub fn is_running(data_dir: &Path) -> bool {
    let Ok(file) = File::open(lock_path(data_dir)) else { return false };
    matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}
