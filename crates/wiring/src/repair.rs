//! Puts devices, ports and firewall rules of a network back that were lost on this host.

use log::info;
use weft_datapath::firewall;
use weft_datapath::segment::{self, Segment};

use crate::error::WiringError;
use crate::host::Host;
use crate::segment_spec::mtu_of;
use crate::segment_state::SegmentState;

impl Host {
    /// Makes what there is of a network on this host as it was noted, asking only the kernel.
    /// If the underlay has changed, everything is made again. Nothing comes back if the network is
    /// no longer on this host.
    pub async fn repair(&self, state: &SegmentState) -> Result<Option<SegmentState>, WiringError> {
        let underlay = self.underlay().await?;
        let network = &state.network;
        let mtu = mtu_of(network.name(), network.record().mtu, underlay.as_ref())?;
        if underlay.as_ref().map(|underlay| underlay.vtep) != state.vtep || mtu != state.mtu {
            return self.ensure(network, state.own_address()).await.map(Some);
        }
        let _lock = self.lock_devices(network.name()).await?;
        let noted = SegmentState::read(&self.config().data_dir, network.name());
        if noted.as_ref() != Some(state) {
            // Another process has made it again or removed it while this one waited.
            self.drop_empty_directory(network.name());
            return Ok(noted);
        }
        let spec = self.spec(network, underlay.as_ref(), mtu, state.node_addresses.clone());
        let segment = segment::ensure(self.netlink(), &spec).await?;
        let repaired =
            SegmentState { bridge: segment.bridge, vxlan: segment.vxlan, ..state.clone() };
        if &repaired != state {
            repaired.write(&self.config().data_dir)?;
        }
        self.join_ports(&repaired).await?;
        if !firewall::is_present(network)? {
            firewall::ensure(network)?;
            info!("network {}: its firewall rules were missing and are set again", network.name());
        }
        Ok(Some(repaired))
    }

    /// Returns whether the devices are as they were noted.
    pub async fn is_intact(&self, state: &SegmentState) -> Result<bool, WiringError> {
        let segment = Segment { bridge: state.bridge, vxlan: state.vxlan };
        Ok(segment::is_intact(self.netlink(), state.network.vni(), &segment).await?)
    }
}
