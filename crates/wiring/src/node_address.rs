//! The host's own address in a network.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_allocator::acquire;
use weft_datapath::underlay::Underlay;
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger};
use weft_model::network::Mode;
use weft_model::{HostNumber, Network};

use crate::error::WiringError;
use crate::host::Host;
use crate::segment_state::SegmentState;

/// The address that the host itself has in a network with a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAddress {
    /// One of its own, reserved in the node's first block.
    Reserved,
    /// The gateway's. Where another IPAM plugin hands addresses out, no other one is safe from
    /// being given to a container.
    Gateway,
}

impl Host {
    /// The host's own addresses in the network. They lie in the node's first block and are kept as
    /// long as the network is on the host. On the way the cluster learns where this node is.
    pub(crate) async fn node_addresses(
        &self,
        network: &Network,
        underlay: Option<&Underlay>,
        own: OwnAddress,
    ) -> Result<Vec<IpNetwork>, WiringError> {
        let data_dir = &self.config().data_dir;
        let ledger = Ledger::open(data_dir, network.clone())?;
        let held = ledger.reservation(&Holder::Node)?;
        let vteps: Vec<IpAddr> = underlay.iter().map(|underlay| underlay.vtep).collect();
        let registered = self.cluster().register(Some(&vteps)).await;
        if held.is_none() {
            registered?;
        }
        if network.mode() == Mode::Internal {
            return Ok(vec![]);
        }
        let with_prefix =
            |address: &IpAddr| network.family_of(*address)?.subnet.with_host(*address);
        let own = if can_spare_one(network) { own } else { OwnAddress::Gateway };
        if own == OwnAddress::Gateway && held.is_none() {
            return Ok(gateways(network).iter().filter_map(with_prefix).collect());
        }
        let reservation = match held {
            Some(reservation) => reservation,
            None => {
                acquire::reserve(
                    self.cluster(),
                    ledger,
                    &Holder::Node,
                    Want::Any,
                    About::default(),
                    &|| true,
                )
                .await?
            }
        };
        Ok(reservation.addresses.iter().filter_map(with_prefix).collect())
    }
}

impl Host {
    /// Takes the host's own addresses off the network of `state`, and the MAC that goes with them:
    /// they have become another node's, and packets to it must not end here. The gateway's address
    /// stays.
    pub async fn take_address_off(&self, state: &SegmentState) -> Result<(), WiringError> {
        let network = &state.network;
        let without = SegmentState {
            node_addresses: vec![],
            lacks_address: true,
            bridge_mac: network.bridge_mac_without_address(&self.config().node),
            ..state.clone()
        };
        {
            let _lock = self.lock_devices(network.name()).await?;
            let data_dir = &self.config().data_dir;
            // Another process may have found the host another address meanwhile.
            if SegmentState::read(data_dir, network.name()).as_ref() != Some(state) {
                return Ok(());
            }
            without.write(data_dir)?;
        }
        // Should it be cut short here, weftd makes everything as it is noted.
        self.repair(&without).await.map(drop)
    }
}

/// Returns whether a container can have an address when a host has taken one: not so in a /30.
fn can_spare_one(network: &Network) -> bool {
    let assignable = network.pools().flat_map(|(_, pool)| {
        let mut next = pool.next_assignable(pool.first());
        std::iter::from_fn(move || {
            let host = next?;
            next = pool.next_assignable(HostNumber::new(host.get() + 1));
            Some(host)
        })
    });
    assignable.take(2).count() == 2
}

/// The gateway addresses of all pools.
pub(crate) fn gateways(network: &Network) -> Vec<IpAddr> {
    let families = network.pools().flat_map(|(_, pool)| pool.families());
    families.filter_map(|family| family.gateway).collect()
}
