//! The host as a node of the cluster: where it is reached, and what is kept off its networks.

use std::net::IpAddr;

use log::debug;
use weft_datapath::attach;
use weft_datapath::underlay;

use crate::setup::selector;
use crate::{Host, WiringError};

impl Host {
    /// The addresses that this host sends and receives VXLAN on; none while there is no underlay.
    pub async fn vteps(&self) -> Vec<IpAddr> {
        match underlay::find(self.netlink(), &selector(&self.config().underlay)).await {
            Ok(underlay) => vec![underlay.vtep],
            Err(error) => {
                debug!("no underlay: {error}");
                vec![]
            }
        }
    }

    /// Takes a container off its network: its interface stays, and has no carrier.
    pub async fn disconnect(&self, host_end: &str) -> Result<(), WiringError> {
        Ok(attach::disconnect_port(self.netlink(), host_end).await?)
    }
}
