//! The containers' host ends that this host has of a network.

use weft_datapath::link::Link;
use weft_model::{Network, NetworkName, device};

use crate::error::WiringError;
use crate::host::Host;

/// Returns whether a link is the host end of a container's interface in the network called `name`,
/// as its alias says.
pub(crate) fn is_host_end(link: &Link, name: &NetworkName) -> bool {
    link.is("veth") && device::network_of(&link.alias).is_some_and(|network| network == *name)
}

impl Host {
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
}
