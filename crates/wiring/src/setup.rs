//! Makes, adopts and repairs a network on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use log::{debug, error, info, warn};
use weft_allocator::acquire;
use weft_cluster::config::Underlay as UnderlayConfig;
use weft_cluster::{
    Cluster, ClusterError, Members, NetworkView, NodeConfig, environment, networks,
};
use weft_datapath::link::Link;
use weft_datapath::netlink::Netlink;
use weft_datapath::peers::bridged::{self, Devices};
use weft_datapath::peers::{PeerTable, Report};
use weft_datapath::segment::{self, Segment, SegmentSpec, Tunnel};
use weft_datapath::underlay::{self, Selector, Underlay};
use weft_datapath::{firewall, ports};
use weft_files::{FileLock, create_private_dir};
use weft_ledger::layout::NetworkDir;
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::network::Mode;
use weft_model::{HostNumber, MacAddr, Network, NetworkName, device, mtu};

use crate::WiringError;
use crate::network_removal::is_host_end;
use crate::peer_table::{Contested, Here, peer_table};
use crate::state::{SegmentState, own_netns};

/// The MTU of a network on a host without an underlay.
const MTU_WITHOUT_UNDERLAY: u32 = 1450;

/// How long to wait for another process of this host that is at the same network.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// Which address the host itself has in a network with a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAddress {
    /// One of its own, reserved in the node's first block.
    Reserved,
    /// The gateway's. Where another IPAM plugin hands addresses out, no other one is safe from
    /// being given to a container.
    Gateway,
}

/// This host, with all it takes to put a network on it.
pub struct Host {
    config: NodeConfig,
    cluster: Cluster,
    netlink: Netlink,
    /// The containers' host ends that were last seen with hairpin mode on.
    hairpins: Mutex<BTreeMap<NetworkName, BTreeSet<String>>>,
    /// What was reported as contested in each network when it was last looked at.
    contested: Mutex<BTreeMap<NetworkName, BTreeSet<Contested>>>,
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

    /// Makes sure that `network` is on this host: devices, the node's own address, firewall rules,
    /// and the peers that the cluster knows now. Several processes may do this at once; they take
    /// turns, and the later ones find it done.
    pub async fn ensure(
        &self,
        network: &Network,
        own: OwnAddress,
    ) -> Result<SegmentState, WiringError> {
        let data_dir = &self.config.data_dir;
        self.clear_the_way(network).await?;
        let _lock = self.lock_devices(network.name()).await?;
        let underlay = self.underlay().await?;
        let mtu = mtu_of(network.name(), network.record().mtu, underlay.as_ref())?;
        let node_addresses = self.node_addresses(network, underlay.as_ref(), own).await?;
        let spec = self.spec(network, underlay.as_ref(), mtu, node_addresses);
        let segment = segment::ensure(&self.netlink, &spec).await?;
        firewall::ensure(network)?;
        let state = SegmentState {
            netns: own_netns().unwrap_or_default(),
            network: network.clone(),
            bridge: segment.bridge,
            bridge_mac: spec.bridge_mac,
            vxlan: segment.vxlan,
            vtep: underlay.map(|underlay| underlay.vtep),
            mtu,
            node_addresses: spec.node_addresses,
        };
        self.join_ports(&state).await?;
        // Containers reach their peers at once, and without an agent too, as of now.
        if !self.cluster.is_single_node() {
            match self.refresh_peers(&state).await {
                // The agent programs them when the store answers.
                Err(WiringError::Allocator(error)) => {
                    debug!("network {}: peers are unchanged: {error}", network.name());
                }
                refreshed => drop(refreshed?),
            }
        }
        state.write(data_dir)?;
        info!("network {} is on this host", network.name());
        Ok(state)
    }

    /// Makes what there is of a network on this host as it was noted, asking nobody but the kernel.
    /// Where the underlay has changed, everything is made anew. Nothing comes back if the network is
    /// no longer on this host.
    pub async fn repair(&self, state: &SegmentState) -> Result<Option<SegmentState>, WiringError> {
        let underlay = self.underlay().await?;
        let network = &state.network;
        let mtu = mtu_of(network.name(), network.record().mtu, underlay.as_ref())?;
        if underlay.as_ref().map(|underlay| underlay.vtep) != state.vtep || mtu != state.mtu {
            return self.ensure(network, state.own_address()).await.map(Some);
        }
        let _lock = self.lock_devices(network.name()).await?;
        let noted = SegmentState::read(&self.config.data_dir, network.name());
        if noted.as_ref() != Some(state) {
            // Somebody has made it anew or removed it while this one waited.
            self.drop_empty_directory(network.name());
            return Ok(noted);
        }
        let spec = self.spec(network, underlay.as_ref(), mtu, state.node_addresses.clone());
        let segment = segment::ensure(&self.netlink, &spec).await?;
        let repaired =
            SegmentState { bridge: segment.bridge, vxlan: segment.vxlan, ..state.clone() };
        if &repaired != state {
            repaired.write(&self.config.data_dir)?;
        }
        self.join_ports(&repaired).await?;
        if !firewall::is_present(network)? {
            firewall::ensure(network)?;
            info!("network {}: its firewall rules were missing and are set again", network.name());
        }
        Ok(Some(repaired))
    }

    /// Removes an earlier network of the same name that had another VNI.
    async fn clear_the_way(&self, network: &Network) -> Result<(), WiringError> {
        let data_dir = &self.config.data_dir;
        let Some(noted) = SegmentState::read(data_dir, network.name()) else { return Ok(()) };
        if noted.network.vni() == network.vni() {
            return Ok(());
        }
        if !self.remove_if_unused(&noted.network).await? {
            return Err(WiringError::MadeAnew {
                network: network.name().clone(),
                old: noted.network.vni(),
                new: network.vni(),
            });
        }
        Ok(networks::cache(data_dir, network)?)
    }

    /// Makes containers' host ends ports of the bridge again, where it was deleted or they were
    /// taken from it.
    async fn join_ports(&self, state: &SegmentState) -> Result<(), WiringError> {
        let name = state.network.name();
        let mut links = self.netlink.links().await?;
        links.retain(|link| is_host_end(link, name));
        let kept_off = self.kept_off(state)?;
        links.retain(|link| !kept_off.contains(&link.name));
        let (joined, lost): (Vec<Link>, Vec<Link>) =
            links.into_iter().partition(|port| ports::is_joined(port, state.bridge));
        let hairpins = self.note_hairpins(name, joined, &lost);
        for mut port in lost {
            // What was a setting of the port went with the bridge.
            port.port.hairpin |= hairpins.contains(&port.name);
            // One that cannot be helped is no reason not to help the others.
            let joined = match ports::other_ends_mac(&self.netlink, &port.name).await {
                Ok(Some(mac)) => ports::join(&self.netlink, &port, state.bridge, mac).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match joined {
                Ok(()) => info!("network {name}: {} is a port of the bridge again", port.name),
                Err(error) if error.is_missing() => {}
                Err(error) => warn!("network {name}: {error}"),
            }
        }
        Ok(())
    }

    /// The host ends of containers whose addresses are other nodes' by now: they stay disconnected.
    fn kept_off(&self, state: &SegmentState) -> Result<BTreeSet<String>, WiringError> {
        let ledger = Ledger::open(&self.config.data_dir, state.network.clone());
        let stranded = ledger.and_then(|ledger| ledger.stranded())?;
        let attachment = |held: &Reservation| held.holder.attachment(state.network.name());
        let attachments = stranded.iter().filter_map(attachment);
        Ok(attachments.map(|attachment| device::host_end(&attachment)).collect())
    }

    /// Notes which ports have hairpin mode on, and returns them together with those of the `lost`
    /// ones that had it.
    fn note_hairpins(
        &self,
        network: &NetworkName,
        joined: Vec<Link>,
        lost: &[Link],
    ) -> BTreeSet<String> {
        let mut hairpins = self.hairpins.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = hairpins.entry(network.clone()).or_default();
        noted.retain(|name| lost.iter().any(|port| &port.name == name));
        noted.extend(joined.into_iter().filter(|p| p.port.hairpin).map(|p| p.name));
        noted.clone()
    }

    /// How the network is to be on this host.
    fn spec(
        &self,
        network: &Network,
        underlay: Option<&Underlay>,
        mtu: u32,
        node_addresses: Vec<IpNetwork>,
    ) -> SegmentSpec {
        let own = &self.config.node;
        let bridge_mac = node_addresses.first().and_then(|address| mac_of(network, address.ip()));
        SegmentSpec {
            network: network.name().clone(),
            vni: network.vni(),
            bridge_mac: bridge_mac.unwrap_or_else(|| network.bridge_mac_without_address(own)),
            mtu,
            tunnel: underlay.map(|underlay| Tunnel {
                vtep: underlay.vtep,
                port: self.config.port,
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

    /// Checks that a network with the MTU `wanted` could be put on this host. A network that is made
    /// without asking would have to be removed before a smaller MTU can be had.
    pub async fn check_mtu(
        &self,
        network: &NetworkName,
        wanted: Option<u32>,
    ) -> Result<(), WiringError> {
        mtu_of(network, wanted, self.underlay().await?.as_ref()).map(drop)
    }

    /// Whether the devices are as they were noted.
    pub async fn is_intact(&self, state: &SegmentState) -> Result<bool, WiringError> {
        let segment = Segment { bridge: state.bridge, vxlan: state.vxlan };
        Ok(segment::is_intact(&self.netlink, state.network.vni(), &segment).await?)
    }

    /// Makes the kernel's peers those of `view`, and returns what it has then. With the table that the
    /// kernel is known to have, only the difference is programmed; without, all is compared.
    pub async fn program_peers(
        &self,
        state: &SegmentState,
        view: &NetworkView,
        members: &Members,
        known: Option<&PeerTable>,
    ) -> Result<(Report, PeerTable), WiringError> {
        let (Some(vxlan), Some(vtep)) = (state.vxlan, state.vtep) else {
            return Ok((Report::default(), PeerTable::default()));
        };
        let network = &state.network;
        let here = Here::of(&self.config.data_dir, network, view)?;
        let (table, contested) = peer_table(view, members, network, &self.config.node, vtep, &here);
        self.report_contested(network.name(), contested);
        let devices = Devices { bridge: state.bridge, vxlan };
        let report = match known {
            Some(known) => {
                bridged::apply_change(&self.netlink, devices, network, known, &table).await?
            }
            None => bridged::reconcile(&self.netlink, devices, network, &table).await?,
        };
        Ok((report, table))
    }

    /// Makes the kernel's peers what the cluster store has now, after a comparison of everything.
    pub async fn refresh_peers(&self, state: &SegmentState) -> Result<Report, WiringError> {
        let view = self.cluster.network_view(state.network.name()).await?;
        let members = self.cluster.members().await?;
        Ok(self.program_peers(state, &view, &members, None).await?.0)
    }

    /// Says once what two nodes lay claim to.
    fn report_contested(&self, network: &NetworkName, contested: BTreeSet<Contested>) {
        let mut reported = self.contested.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reported.entry(network.clone()).or_default();
        for Contested { what, node } in contested.difference(before) {
            error!(
                "network {network}: {what} is node {node}'s by the cluster store, but this node's \
                 by its own files; what is sent there stays on this host until the two agree"
            );
        }
        *before = contested;
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
            // The process that had the lock before may have removed the network and this file with it.
            if lock.is_current() {
                return Ok(lock);
            }
        }
    }

    /// The underlay. A single node does without one.
    async fn underlay(&self) -> Result<Option<Underlay>, WiringError> {
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

    /// The host's own addresses in the network. They lie in the node's first block and are kept as
    /// long as the network is on the host. On the way the cluster learns where this node is.
    async fn node_addresses(
        &self,
        network: &Network,
        underlay: Option<&Underlay>,
        own: OwnAddress,
    ) -> Result<Vec<IpNetwork>, WiringError> {
        let data_dir = &self.config.data_dir;
        let ledger = Ledger::open(data_dir, network.clone())?;
        let held = ledger.reservation(&Holder::Node)?;
        let vteps: Vec<IpAddr> = underlay.iter().map(|underlay| underlay.vtep).collect();
        let registered = self.cluster.register(Some(&vteps)).await;
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
                    &self.cluster,
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

/// Whether a container can have an address when a host has taken one: not so in a /30.
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

/// The MTU of the network on this host, in bytes.
fn mtu_of(
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

/// The gateway addresses of all pools.
fn gateways(network: &Network) -> Vec<IpAddr> {
    let families = network.pools().flat_map(|(_, pool)| pool.families());
    families.filter_map(|family| family.gateway).collect()
}
