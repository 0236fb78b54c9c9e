//! Takes a network away from this host.
//!
//! The first step is the one that counts: the network's directory is renamed, under the lock that
//! every reservation takes. From then on no process of this host finds the network, and what is
//! left of it is known from the renamed directory, so that the process that comes after a crash can
//! finish.

use std::path::{Path, PathBuf};

use log::{info, warn};
use weft_cluster::networks;
use weft_datapath::{firewall, segment};
use weft_files::FileError;
use weft_ledger::Ledger;
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::{Network, NetworkName, device};

use crate::error::WiringError;
use crate::host::Host;
use crate::segment_state::SegmentState;

/// The end of a directory's name that waits for its removal to be finished. It begins with a dot,
/// which no network's does.
const REMOVED: &str = ".removed";

/// The place of the directory of network `name` while it is being removed.
fn tombstone(data_dir: &Path, name: &NetworkName) -> PathBuf {
    networks_dir(data_dir).join(format!(".{name}{REMOVED}"))
}

/// The networks whose removal from this host has begun and is not finished.
pub fn unfinished(data_dir: &Path) -> Vec<NetworkName> {
    let name_of = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        NetworkName::new(name.strip_prefix('.')?.strip_suffix(REMOVED)?).ok()
    };
    let entries = std::fs::read_dir(networks_dir(data_dir)).into_iter().flatten().flatten();
    entries.filter_map(name_of).collect()
}

impl Host {
    /// Removes what this host has of `network`, unless a container is in it. Says whether there is
    /// nothing left.
    pub async fn remove_if_unused(&self, network: &Network) -> Result<bool, WiringError> {
        let name = network.name();
        let data_dir = &self.config().data_dir;
        let (dir, tombstone) = (NetworkDir::new(data_dir, name), tombstone(data_dir, name));
        loop {
            if !self.finish_removal(name).await? {
                return Ok(false);
            }
            if !dir.root().exists() {
                // Another process may be at it since a moment ago.
                return self.finish_removal(name).await;
            }
            let lock = self.lock_devices(name).await?;
            if tombstone.exists() {
                continue;
            }
            if self.drop_empty_directory(name) {
                return Ok(true);
            }
            let made = SegmentState::read(data_dir, name);
            let made = made.as_ref().map_or(network, |state| &state.network);
            if !self.ports(made).await?.is_empty() {
                return Ok(false);
            }
            let ledger = Ledger::open(data_dir, network.clone())?;
            if !ledger.retire(&tombstone)? {
                return Ok(false);
            }
            drop(lock);
        }
    }

    /// Finishes a removal that has begun; says whether there is nothing left of it. Containers that
    /// came in at the last moment put it off.
    pub async fn finish_removal(&self, name: &NetworkName) -> Result<bool, WiringError> {
        let data_dir = &self.config().data_dir;
        let tombstone = tombstone(data_dir, name);
        if !tombstone.exists() {
            return Ok(true);
        }
        // Others may be about to make the network again.
        let _lock = self.lock_devices(name).await?;
        let dir = NetworkDir::new(data_dir, name);
        let finished = match SegmentState::made_in(&tombstone, &dir) {
            Some(network) => self.remove_devices(&network).await?,
            None => true,
        };
        if finished && tombstone.exists() {
            std::fs::remove_dir_all(&tombstone).map_err(FileError::io("remove", &tombstone))?;
            info!("network {name}: removed from this host");
        }
        self.drop_empty_directory(name);
        Ok(finished)
    }

    /// Removes devices and firewall rules of `network`, if they are still its own; says whether
    /// there are none left.
    async fn remove_devices(&self, network: &Network) -> Result<bool, WiringError> {
        let (name, vni) = (network.name(), network.vni());
        let data_dir = &self.config().data_dir;
        let of_this_vni = |other: &Network| {
            SegmentState::read(data_dir, other.name()).is_some_and(|s| s.network.vni() == vni)
        };
        if networks::all_cached(data_dir)?.iter().any(of_this_vni) {
            return Ok(true);
        }
        let bridge = self.netlink().link(&device::bridge(vni)).await?;
        if bridge.is_some_and(|b| !b.alias.is_empty() && b.alias != format!("weft:{name}")) {
            return Ok(true);
        }
        let ports = self.ports(network).await?.len();
        if ports > 0 {
            warn!("network {name} is removed, but this host has {ports} containers in it");
            return Ok(false);
        }
        segment::remove(self.netlink(), vni).await?;
        firewall::remove(network)?;
        Ok(true)
    }

    /// Removes the network's directory if there is nothing in it but the file of the lock that the
    /// caller has; says whether it did.
    pub(crate) fn drop_empty_directory(&self, name: &NetworkName) -> bool {
        let dir = NetworkDir::new(&self.config().data_dir, name);
        let lock = dir.segment_lock();
        let entries = std::fs::read_dir(dir.root()).into_iter().flatten().flatten();
        if !entries.into_iter().all(|entry| entry.path() == lock) {
            return false;
        }
        // Somebody who puts a file there at this moment keeps the directory, and takes the lock
        // again.
        let _ = std::fs::remove_file(&lock);
        std::fs::remove_dir(dir.root()).is_ok()
    }
}
