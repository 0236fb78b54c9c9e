//! The sign that this node's agent runs: it holds a lock for as long as it lives.

use std::path::{Path, PathBuf};

use weft_files::lock;

/// The file that a running agent holds locked.
pub fn lock_path(data_dir: &Path) -> PathBuf {
    data_dir.join("weftd.lock")
}

/// Returns whether an agent runs with this data directory.
pub fn is_running(data_dir: &Path) -> bool {
    lock::is_held(&lock_path(data_dir))
}
