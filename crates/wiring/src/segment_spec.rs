//! The devices that a network is to have on this host: MTU, MACs, tunnel and addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_datapath::segment::{SegmentSpec, Tunnel};
use weft_datapath::underlay::Underlay;
use weft_model::network::Mode;
use weft_model::{MacAddr, Network, NetworkName, mtu};

use crate::error::WiringError;
use crate::host::Host;
use crate::node_address::gateways;

/// The MTU of a network on a host without an underlay.
const MTU_WITHOUT_UNDERLAY: u32 = 1450;

impl Host {
    /// The devices that the network is to have on this host.
    pub(crate) fn spec(
        &self,
        network: &Network,
        underlay: Option<&Underlay>,
        mtu: u32,
        node_addresses: Vec<IpNetwork>,
    ) -> SegmentSpec {
        let own = &self.config().node;
        let bridge_mac = node_addresses.first().and_then(|address| mac_of(network, address.ip()));
        SegmentSpec {
            network: network.name().clone(),
            vni: network.vni(),
            bridge_mac: bridge_mac.unwrap_or_else(|| network.bridge_mac_without_address(own)),
            mtu,
            tunnel: underlay.map(|underlay| Tunnel {
                vtep: underlay.vtep,
                port: self.config().port,
                underlay: underlay.index,
                mac: MacAddr::from_seed(&format!("vxlan/{own}/{}", network.name())),
            }),
            gateways: gateways(network)
                .into_iter()
                .filter(|gateway| !node_addresses.iter().any(|own| own.ip() == *gateway))
                .collect(),
            subnets: other_subnets(network, &node_addresses),
            node_addresses,
        }
    }

    /// Checks that a network with the MTU `wanted` could be put on this host. A network that is
    /// made without asking would have to be removed before a smaller MTU can be had.
    pub async fn check_mtu(
        &self,
        network: &NetworkName,
        wanted: Option<u32>,
    ) -> Result<(), WiringError> {
        mtu_of(network, wanted, self.underlay().await?.as_ref()).map(drop)
    }
}

/// The MTU of the network on this host, in bytes.
pub(crate) fn mtu_of(
    network: &NetworkName,
    wanted: Option<u32>,
    underlay: Option<&Underlay>,
) -> Result<u32, WiringError> {
    let Some(underlay) = underlay else { return Ok(wanted.unwrap_or(MTU_WITHOUT_UNDERLAY)) };
    let possible = mtu::overlay(underlay.mtu, &[mtu::Overhead::vxlan(underlay.vtep)]);
    if possible < mtu::MINIMUM {
        let Underlay { name, mtu, .. } = underlay.clone();
        return Err(WiringError::UnderlayTooSmall { underlay: name, mtu });
    }
    match wanted {
        Some(wanted) if wanted > possible => Err(WiringError::MtuTooLarge {
            network: network.clone(),
            wanted,
            underlay: underlay.name.clone(),
            possible,
        }),
        _ => Ok(wanted.unwrap_or(possible)),
    }
}

/// The MAC that goes with an address of the network.
fn mac_of(network: &Network, address: IpAddr) -> Option<MacAddr> {
    let (pool, host) = network.locate(address)?;
    Some(network.addresses(pool, host)?.mac)
}

/// The subnets of a network with a way out in which the host has no address of its own.
fn other_subnets(network: &Network, own: &[IpNetwork]) -> Vec<IpNetwork> {
    if network.mode() == Mode::Internal {
        return vec![];
    }
    let others = network.subnets().filter(|s| !own.iter().any(|own| s.contains(own.ip())));
    others.map(|subnet| subnet.as_ip_network()).collect()
}
