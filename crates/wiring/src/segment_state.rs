//! Devices and addresses that were made of a network on this host, noted for the plugin's hot path.
//!
//! Making or checking a bridge takes a dozen netlink messages and a firewall transaction; reading
//! this note and asking the kernel for two links by index takes almost nothing. The note is
//! believed only in the network namespace and for the definition that it was written for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use weft_files::{FileError, Inode, json};
use weft_ledger::layout::NetworkDir;
use weft_model::{MacAddr, Network, NetworkName};

use crate::node_address::OwnAddress;

/// The namespace that this process runs in.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// Devices and addresses that were made of a network on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentState {
    /// Device and inode of the network namespace that the devices are in.
    pub netns: Inode,
    /// The definition that they were made from.
    pub network: Network,
    /// The bridge's interface index.
    pub bridge: u32,
    /// The bridge's MAC.
    pub bridge_mac: MacAddr,
    /// The VXLAN device's interface index, if there is an underlay.
    pub vxlan: Option<u32>,
    /// The VTEP that it speaks from, if there is an underlay.
    pub vtep: Option<IpAddr>,
    /// The MTU of every interface, in bytes.
    pub mtu: u32,
    /// The host's own addresses in the network, with the subnets' prefix lengths.
    pub node_addresses: Vec<IpNetwork>,
    /// Set while the host is without an address of its own that it should have: the one that it had
    /// became another node's, and there is no other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lacks_address: bool,
}

impl SegmentState {
    /// The note of `network`, if it was made from this very definition, here.
    pub fn recall(data_dir: &Path, network: &Network) -> Option<Self> {
        Self::read(data_dir, network.name()).filter(|state| &state.network == network)
    }

    /// The note of the network called `name`, if it was made here.
    pub fn read(data_dir: &Path, name: &NetworkName) -> Option<Self> {
        let state: Self = json::load(&NetworkDir::new(data_dir, name).segment()).ok()??;
        (Some(state.netns) == own_netns()).then_some(state)
    }

    /// The address that the host has in the network.
    pub fn own_address(&self) -> OwnAddress {
        let is_gateway = |own: &IpNetwork| {
            self.network.family_of(own.ip()).is_some_and(|f| f.gateway == Some(own.ip()))
        };
        if self.node_addresses.iter().any(is_gateway) {
            OwnAddress::Gateway
        } else {
            OwnAddress::Reserved
        }
    }

    /// Notes the state.
    pub fn write(&self, data_dir: &Path) -> Result<(), FileError> {
        let path = NetworkDir::new(data_dir, self.network.name()).segment();
        json::store(&path, self)
    }

    /// The definition that was last made of the network whose directory is now at `root`: the
    /// note's, or where there is none the cached one.
    pub(crate) fn made_in(root: &Path, dir: &NetworkDir) -> Option<Network> {
        let moved = |path: PathBuf| Some(root.join(path.file_name()?));
        let note: Option<Self> = json::load(&moved(dir.segment())?).ok().flatten();
        let note = note.filter(|state| Some(state.netns) == own_netns());
        let cached = || json::load(&moved(dir.definition())?).ok().flatten();
        note.map(|state| state.network).or_else(cached)
    }
}

/// Device and inode of this thread's network namespace.
pub fn own_netns() -> Option<Inode> {
    Inode::at(Path::new(OWN_NETNS))
}
