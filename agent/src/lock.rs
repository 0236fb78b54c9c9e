//! One agent for each data directory.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use weft_node::{agent, networks};

/// Takes the place of this data directory's agent, and writes its process id, for people. It is given back when the file is closed, so
/// also when the process dies.
pub fn take(data_dir: &Path) -> anyhow::Result<File> {
    networks::create_private_dir(data_dir)?;
    let path = agent::lock_path(data_dir);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another weftd runs with data directory {}; stop it first", data_dir.display())
        }
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
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
