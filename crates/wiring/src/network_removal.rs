//! Takes a network away from this host.
//!
//! The first step is the one that counts: the network's directory is renamed, under the lock that
//! every reservation takes. From then on no process of this host finds the network, and what is left
//! of it is known from the renamed directory, so that whoever comes after a crash can finish.

use std::path::{Path, PathBuf};

use log::{info, warn};
use weft_cluster::networks;
use weft_datapath::link::Link;
use weft_datapath::{firewall, segment};
use weft_files::FileError;
use weft_ledger::Ledger;
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::{Network, NetworkName, device};

use crate::state::SegmentState;
use crate::{Host, WiringError};

/// What the name of a directory ends with that waits for its removal to be finished. It begins with
/// a dot, which no network's does.
const REMOVED: &str = ".removed";

/// Where the directory of network `name` is while it is being removed.
fn grave(data_dir: &Path, name: &NetworkName) -> PathBuf {
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

/// Whether a link is the host end of a container's interface in the network called `name`, as its
/// alias says.
pub(crate) fn is_host_end(link: &Link, name: &NetworkName) -> bool {
    let alias = link.alias.strip_prefix("weft:");
    link.is("veth") && alias.is_some_and(|alias| alias.ends_with(&format!(" on network {name}")))
}

impl Host {
    /// Removes what this host has of `network`, unless a container is in it. Says whether there is
    /// nothing left.
    pub async fn remove_if_unused(&self, network: &Network) -> Result<bool, WiringError> {
        let name = network.name();
        let data_dir = &self.config().data_dir;
        let (dir, grave) = (NetworkDir::new(data_dir, name), grave(data_dir, name));
        loop {
            if !self.finish_removal(name).await? {
                return Ok(false);
            }
            if !dir.root().exists() {
                // Another process may be at it since a moment ago.
                return self.finish_removal(name).await;
            }
            let lock = self.lock_devices(name).await?;
            if grave.exists() {
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
            if !ledger.retire(&grave)? {
                return Ok(false);
            }
            drop(lock);
        }
    }

    /// Finishes a removal that has begun; says whether there is nothing left of it. Containers that
    /// came in at the last moment put it off.
    pub async fn finish_removal(&self, name: &NetworkName) -> Result<bool, WiringError> {
        let data_dir = &self.config().data_dir;
        let grave = grave(data_dir, name);
        if !grave.exists() {
            return Ok(true);
        }
        // The turn of those who would make the network anew.
        let _lock = self.lock_devices(name).await?;
        let dir = NetworkDir::new(data_dir, name);
        let finished = match SegmentState::made_in(&grave, &dir) {
            Some(network) => self.remove_devices(&network).await?,
            None => true,
        };
        if finished && grave.exists() {
            std::fs::remove_dir_all(&grave).map_err(FileError::io("remove", &grave))?;
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

    /// The host ends of the containers that are in `network`: the ports of its bridge, and those
    /// that have lost their bridge.
    pub async fn ports(&self, network: &Network) -> Result<Vec<Link>, WiringError> {
        let mut links = self.netlink().links().await?;
        let bridge = device::bridge(network.vni());
        let bridge = links.iter().find(|link| link.name == bridge).map(|bridge| bridge.index);
        links.retain(|link| match link.bridge {
            Some(index) => link.is("veth") && bridge == Some(index),
            None => is_host_end(link, network.name()),
        });
        Ok(links)
    }

    /// Removes the network's directory if there is nothing in it but the file of the turn that the
    /// caller has; says whether it did.
    pub(crate) fn drop_empty_directory(&self, name: &NetworkName) -> bool {
        let dir = NetworkDir::new(&self.config().data_dir, name);
        let lock = dir.segment_lock();
        let entries = std::fs::read_dir(dir.root()).into_iter().flatten().flatten();
        if !entries.into_iter().all(|entry| entry.path() == lock) {
            return false;
        }
        // Somebody who puts a file there at this moment keeps the directory, and takes another turn.
        let _ = std::fs::remove_file(&lock);
        std::fs::remove_dir(dir.root()).is_ok()
    }
}
