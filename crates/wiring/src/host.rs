//! The host: the node's configuration, the cluster, the connection to the kernel, the underlay, and
//! the lock of a network's devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use log::debug;
use weft_cluster::config::Underlay as UnderlayConfig;
use weft_cluster::{Cluster, ClusterError, NodeConfig, environment};
use weft_datapath::netlink::Netlink;
use weft_datapath::underlay::{self, Selector, Underlay};
use weft_files::{FileLock, create_private_dir};
use weft_ledger::layout::NetworkDir;
use weft_model::NetworkName;

use crate::error::WiringError;
use crate::peer_table::Contested;

/// Limit for waiting for another process of this host that is at the same network.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// This host, with all it takes to put a network on it.
pub struct Host {
    config: NodeConfig,
    cluster: Cluster,
    netlink: Netlink,
    /// The containers' host ends that were last seen with hairpin mode on.
    pub(crate) hairpins: Mutex<BTreeMap<NetworkName, BTreeSet<String>>>,
    /// Blocks and addresses reported as contested in each network when it was last looked at.
    pub(crate) contested: Mutex<BTreeMap<NetworkName, BTreeSet<Contested>>>,
}

/// The underlay that the configuration names.
pub fn selector(config: &UnderlayConfig) -> Selector {
    match config {
        UnderlayConfig::DefaultRoute => Selector::DefaultRoute,
        UnderlayConfig::Interface(name) => Selector::Interface(name.clone()),
        UnderlayConfig::Address(address) => Selector::Address(*address),
    }
}

impl Host {
    /// This host, as `config` describes it.
    pub fn new(config: NodeConfig, cluster: Cluster, netlink: Netlink) -> Self {
        let (hairpins, contested) = (Mutex::default(), Mutex::default());
        Self { config, cluster, netlink, hairpins, contested }
    }

    /// The node's configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The connection to the kernel.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The underlay. A single node does without one.
    pub(crate) async fn underlay(&self) -> Result<Option<Underlay>, WiringError> {
        match underlay::find(&self.netlink, &selector(&self.config.underlay)).await {
            Ok(underlay) => Ok(Some(underlay)),
            Err(error)
                if self.cluster.is_single_node()
                    && self.config.underlay == UnderlayConfig::DefaultRoute =>
            {
                debug!("no tunnel: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no other process of this host is working on the devices of the network called
    /// `name`.
    pub(crate) async fn lock_devices(&self, name: &NetworkName) -> Result<FileLock, WiringError> {
        let dir = NetworkDir::new(&self.config.data_dir, name);
        let path = dir.segment_lock();
        loop {
            create_private_dir(dir.root())?;
            let environment = self.cluster.environment();
            let lock = match environment::wait_for_lock(environment, &path, LOCK_TIMEOUT).await {
                // The directory was removed between the two.
                Err(error) if error.is_not_found() => continue,
                lock => lock?,
            };
            let Some(lock) = lock else {
                return Err(ClusterError::Busy {
                    work: "setting up",
                    network: name.clone(),
                    waited: LOCK_TIMEOUT,
                    store: self.cluster.store().describe(),
                }
                .into());
            };
            // The process that had the lock before may have removed the network and this file with
            // it.
            if lock.is_current() {
                return Ok(lock);
            }
        }
    }
}
