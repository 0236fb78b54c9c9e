//! One agent for each data directory.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use weft_cluster::agent;
use weft_files::{FileLock, create_private_dir};

/// Tries while the lock may be held for a moment only.
const PROBES: usize = 10;

/// Pause between two tries.
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// Takes the lock of this data directory's agent and writes the process id into its file, for
/// people. The lock is released when it is dropped, so also when the process dies.
pub fn take(data_dir: &Path) -> anyhow::Result<FileLock> {
    create_private_dir(data_dir)?;
    let path = agent::lock_path(data_dir);
    let mut lock = FileLock::try_take(&path)?;
    // A plugin that asks whether an agent runs holds the lock for a moment.
    for _ in 0..PROBES {
        if lock.is_some() {
            break;
        }
        std::thread::sleep(PROBE_PAUSE);
        lock = FileLock::try_take(&path)?;
    }
    let Some(mut lock) = lock else {
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
