//! Makes a network on this host: devices, the node's own address, firewall rules, peers.

use log::{debug, info};
use weft_cluster::networks;
use weft_datapath::{firewall, segment};
use weft_model::Network;

use crate::error::WiringError;
use crate::host::Host;
use crate::node_address::OwnAddress;
use crate::segment_spec::mtu_of;
use crate::segment_state::{SegmentState, own_netns};

impl Host {
    /// Makes `network` on this host: devices, the node's own address, firewall rules, and the peers
    /// that the cluster knows now. What is there already is compared and put right. Several
    /// processes may do this at once; they wait for each other.
    pub async fn ensure(
        &self,
        network: &Network,
        own: OwnAddress,
    ) -> Result<SegmentState, WiringError> {
        // Under another name it would program its own blocks as another node's.
        self.cluster().claim_name()?;
        self.remove_predecessor(network).await?;
        let _lock = self.lock_devices(network.name()).await?;
        self.make(network, own).await
    }

    /// Makes `network` on this host, unless it is there when the processes before this one are done
    /// with it. The first containers of a network often come together: would each repeat what the
    /// first one did, the last would wait for all of them.
    pub(crate) async fn ensure_once(
        &self,
        network: &Network,
        own: OwnAddress,
    ) -> Result<SegmentState, WiringError> {
        self.cluster().claim_name()?;
        self.remove_predecessor(network).await?;
        let _lock = self.lock_devices(network.name()).await?;
        if let Some(state) = SegmentState::recall(&self.config().data_dir, network)
            && self.is_intact(&state).await?
        {
            return Ok(state);
        }
        self.make(network, own).await
    }

    /// Makes the network. The caller holds the lock of its devices.
    async fn make(&self, network: &Network, own: OwnAddress) -> Result<SegmentState, WiringError> {
        let data_dir = &self.config().data_dir;
        let underlay = self.underlay().await?;
        let mtu = mtu_of(network.name(), network.record().mtu, underlay.as_ref())?;
        // `nft` and the kernel take longer for the rules than everything else does, so that goes on
        // meanwhile. What a failure leaves of the rules goes with the network's definition.
        let rules = firewall::begin(network)?;
        let known = SegmentState::recall(data_dir, network);
        let lacks_address = known.is_some_and(|state| state.lacks_address);
        let node_addresses = match self.node_addresses(network, underlay.as_ref(), own).await {
            // The others need devices all the same.
            Err(error) if lacks_address => {
                debug!("network {}: no address for this host: {error}", network.name());
                vec![]
            }
            node_addresses => node_addresses?,
        };
        let lacks_address = lacks_address && node_addresses.is_empty();
        let spec = self.spec(network, underlay.as_ref(), mtu, node_addresses);
        let segment = segment::ensure(self.netlink(), &spec).await?;
        let state = SegmentState {
            netns: own_netns().unwrap_or_default(),
            network: network.clone(),
            bridge: segment.bridge,
            bridge_mac: spec.bridge_mac,
            vxlan: segment.vxlan,
            vtep: underlay.map(|underlay| underlay.vtep),
            mtu,
            node_addresses: spec.node_addresses,
            lacks_address,
        };
        self.join_ports(&state).await?;
        // Containers reach their peers at once, and without an agent too, as of now.
        if !self.cluster().is_single_node() {
            match self.refresh_peers(&state).await {
                // The agent programs them when the store answers.
                Err(WiringError::Allocator(error)) => {
                    debug!("network {}: peers are unchanged: {error}", network.name());
                }
                refreshed => drop(refreshed?),
            }
        }
        // Nothing connects a container before the note is there, and it is not written before the
        // rules stand.
        rules.wait()?;
        state.write(data_dir)?;
        if !lacks_address {
            info!("network {} is on this host", network.name());
        }
        Ok(state)
    }

    /// Removes an earlier network of the same name that had another VNI.
    async fn remove_predecessor(&self, network: &Network) -> Result<(), WiringError> {
        let data_dir = &self.config().data_dir;
        let Some(noted) = SegmentState::read(data_dir, network.name()) else { return Ok(()) };
        if noted.network.vni() == network.vni() {
            return Ok(());
        }
        if !self.remove_if_unused(&noted.network).await? {
            return Err(WiringError::Recreated {
                network: network.name().clone(),
                old: noted.network.vni(),
                new: network.vni(),
            });
        }
        Ok(networks::cache(data_dir, network)?)
    }
}
