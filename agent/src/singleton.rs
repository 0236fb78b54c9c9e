//! One agent for each data directory.

use std::path::Path;

use anyhow::bail;
use weft_cluster::agent;
use weft_files::{FileLock, create_private_dir};

/// Takes the lock of this data directory's agent and writes the process id into its file, for
/// people. The lock is released when it is dropped, so also when the process dies.
pub fn take(data_dir: &Path) -> anyhow::Result<FileLock> {
    create_private_dir(data_dir)?;
    let Some(mut lock) = FileLock::try_take(&agent::lock_path(data_dir))? else {
        bail!("another weftd runs with data directory {}; stop it first", data_dir.display())
    };
    lock.write(&format!("{}\n", std::process::id()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one_agent_for_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("weft");
        let first = super::take(&data_dir).unwrap();
        assert!(super::take(&data_dir).unwrap_err().to_string().contains("another weftd"));
        drop(first);
        super::take(&data_dir).unwrap();
    }
}
