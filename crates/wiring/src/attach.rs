//! Connects a container to a network on this host.
//!
//! With the address known, the veth is made with its MAC in one message; then its port is
//! protected, and only then does the container's end go up: there is no carrier before the port
//! lets through that MAC alone. A failed attempt leaves nothing.
//!
//! The container's end goes into its sandbox and is configured there, or stays on the host under a
//! name of the caller's choice for another program to move and configure.

use ipnetwork::IpNetwork;
use log::{debug, warn};
use weft_cluster::{ClusterError, networks};
use weft_datapath::DatapathError;
use weft_datapath::attach::{self, InterfaceSpec, Port, PortSecurity, PortSpec};
pub use weft_datapath::attach::{Hairpin, Route};
use weft_datapath::netlink::Netlink;
pub use weft_datapath::netns::Entry;
use weft_datapath::netns::Netns;
use weft_model::{Attachment, IfName, MacAddr, Network, NetworkName, NetworkSpec, device};

use crate::error::{Obstacle, WiringError};
use crate::host::Host;
use crate::node_address::OwnAddress;
use crate::segment_state::SegmentState;

/// A container's network namespace, with a connection to the kernel inside of it.
pub struct Inside {
    netns: Netns,
    netlink: Netlink,
}

impl Inside {
    /// Enters `netns` by the thread that `entry` says. Only `setns(2)` can tell that a namespace is
    /// one of networks.
    pub fn enter(netns: Netns, entry: Entry) -> Result<Self, WiringError> {
        let netlink = Netlink::open_in(&netns, entry)?;
        Ok(Self { netns, netlink })
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The connection to the kernel.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }
}

/// Place of the container's end of the veth.
#[derive(Clone, Copy)]
pub enum ContainerEnd<'a> {
    /// In the container, under the attachment's interface name, configured and up.
    Inside(&'a Inside),
    /// On the host under this name, down and without addresses, for another program to move.
    OnHost(&'a IfName),
}

/// A request to connect a container.
#[derive(Clone, Copy)]
pub struct AttachRequest<'a> {
    /// The attachment.
    pub attachment: &'a Attachment,
    /// The address that this host takes in the network, where the network has to be made again.
    pub own_address: OwnAddress,
    /// With it, the container reaches itself by way of its own service address.
    pub hairpin: Hairpin,
    /// The wanted MAC; without one it follows from the address.
    pub mac: Option<MacAddr>,
    /// Place of the container's end.
    pub container_end: ContainerEnd<'a>,
    /// The container's addresses with their prefix lengths.
    pub addresses: &'a [IpNetwork],
    /// The container's routes.
    pub routes: &'a [Route],
}

/// A container that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The network on this host.
    pub state: SegmentState,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the veth's host end.
    pub host_end: String,
    /// MAC of the host end.
    pub host_mac: MacAddr,
    /// MAC of the container's end.
    pub mac: MacAddr,
}

impl Host {
    /// The network called `name` on this host, as `spec` asks for it; put on the host first if it
    /// is not there. In the usual case this reads two files and asks the kernel for two links.
    pub async fn ready(
        &self,
        name: &NetworkName,
        spec: &NetworkSpec,
        own: OwnAddress,
    ) -> Result<SegmentState, WiringError> {
        let data_dir = &self.config().data_dir;
        if let Some(network) = networks::cached(data_dir, name)?
            && networks::agree(&network, spec).is_ok()
            && let Some(state) = SegmentState::recall(data_dir, &network)
            && self.is_intact(&state).await?
        {
            return Ok(state);
        }
        if let Err(error) = self.check_mtu(name, spec.mtu).await {
            // A network that exists has an MTU of its own.
            let known = match networks::cached(data_dir, name)? {
                Some(cached) => Some(cached),
                None => self.cluster().network(name).await?.map(|(stored, _)| stored),
            };
            known.map_or(Ok(()), |known| networks::agree(&known, spec))?;
            return Err(error);
        }
        let network = match networks::resolve(data_dir, self.cluster(), name, spec).await {
            Err(error) if self.leave_if_superseded(name, &error).await? => {
                networks::resolve(data_dir, self.cluster(), name, spec).await?
            }
            resolved => resolved?,
        };
        self.ensure_once(&network, own).await
    }

    /// Takes a network away that this host has and the cluster has not, if the error says so and no
    /// container is in it. Returns whether it did.
    async fn leave_if_superseded(
        &self,
        name: &NetworkName,
        error: &ClusterError,
    ) -> Result<bool, WiringError> {
        if !matches!(error, ClusterError::Removed { .. } | ClusterError::AnotherNetwork { .. }) {
            return Ok(false);
        }
        let Some(known) = networks::cached(&self.config().data_dir, name)? else {
            return Ok(false);
        };
        if !self.remove_if_unused(&known).await? {
            return Ok(false);
        }
        if matches!(error, ClusterError::Removed { .. }) {
            self.cluster().leave_network(&known.id()).await?;
        }
        Ok(true)
    }

    /// Connects a container to the network that is [`ready`](Self::ready). After an error nothing
    /// is left of the attempt; what an earlier one connected stays.
    pub async fn attach(
        &self,
        ready: SegmentState,
        request: &AttachRequest<'_>,
    ) -> Result<Attached, WiringError> {
        let state = self.extended(ready, request).await?;
        let host_end = device::host_end(request.attachment);
        let attached = self.connect(state, request, &host_end).await;
        // After any other error the kernel may have made it, and only the answer was lost.
        if let Err(error) = &attached
            && !matches!(error, WiringError::InterfaceExists { .. })
            && let Err(error) = attach::delete_port(self.netlink(), &host_end).await
        {
            warn!("while taking back a failed attempt: {error}");
        }
        attached
    }

    /// Returns whether the attachment's veth is there, or may be.
    pub async fn is_attached(&self, attachment: &Attachment) -> bool {
        match self.netlink().link(&device::host_end(attachment)).await {
            Ok(link) => link.is_some_and(|link| attach::is_host_end(&link)),
            Err(_) => true,
        }
    }

    /// The link that keeps a port from being made. The host end tells: of the interface the kernel
    /// says only that its name is taken.
    async fn obstacle(&self, port: &PortSpec<'_>, request: &AttachRequest<'_>) -> Obstacle {
        match self.netlink().link(port.host_end).await {
            Ok(Some(link)) if !attach::is_host_end(&link) => Obstacle::HostEnd(link.name),
            Ok(None) => Obstacle::Interface(port.ifname.to_owned()),
            _ => Obstacle::Attachment(Box::new(request.attachment.clone())),
        }
    }

    /// Makes the veth, secures its port, and configures the container's end.
    async fn connect(
        &self,
        state: SegmentState,
        request: &AttachRequest<'_>,
        host_end: &str,
    ) -> Result<Attached, WiringError> {
        let attachment = request.attachment;
        let derived = derived_mac(&state.network, request.addresses);
        let mac = match request.mac {
            Some(mac) if Some(mac) != derived => free_mac(&state, mac)?,
            _ => derived.unwrap_or_else(|| MacAddr::from_seed(&format!("container/{attachment}"))),
        };
        // Until the agent has heard of it, the MAC of an address that came here from another node
        // leads to that node.
        let takes_from = state.vxlan.filter(|_| Some(mac) == derived);
        let host_mac = MacAddr::from_seed(host_end);
        let (ifname, netns) = match request.container_end {
            ContainerEnd::Inside(inside) => (&attachment.ifname, Some(&inside.netns)),
            ContainerEnd::OnHost(name) => (name, None),
        };
        let mut port = PortSpec {
            host_end,
            host_mac,
            bridge: state.bridge,
            mtu: state.mtu,
            ifname: ifname.as_str(),
            mac,
            netns,
        };
        let (state, made) = self.make_port(state, &mut port, request).await?;
        // Before there is a carrier: afterwards the host's end would have a link-local address
        // already.
        let security = PortSecurity {
            index: made.host_end,
            name: host_end,
            alias: &device::host_end_alias(attachment),
            bridge: state.bridge,
            mac,
            takes_from: takes_from.as_slice(),
            hairpin: request.hairpin,
        };
        let secured = attach::secure_port(self.netlink(), &security).await;
        secured.map_err(|error| match error {
            DatapathError::MacHeld { holder, .. } if Some(mac) == derived => {
                WiringError::AddressInUse {
                    address: addresses_of(&state.network, mac).unwrap_or_else(|| mac.to_string()),
                    network: state.network.name().clone(),
                    holder,
                }
            }
            error => error.into(),
        })?;
        if let ContainerEnd::Inside(inside) = request.container_end {
            let interface = InterfaceSpec {
                index: made.interface,
                ifname: ifname.as_str(),
                netns: &inside.netns,
                addresses: request.addresses,
                routes: request.routes,
            };
            attach::configure_interface(&inside.netlink, &interface).await?;
        }
        let bridge = device::bridge(state.network.vni());
        Ok(Attached { state, bridge, host_end: host_end.to_owned(), host_mac, mac })
    }

    /// The network with all the pools that the container's addresses lie in: the IPAM may be the
    /// first on this host to learn of a pool.
    async fn extended(
        &self,
        ready: SegmentState,
        request: &AttachRequest<'_>,
    ) -> Result<SegmentState, WiringError> {
        let is_known = |ip: &IpNetwork| ready.network.locate(ip.ip()).is_some();
        if request.own_address == OwnAddress::Gateway || request.addresses.iter().all(is_known) {
            return Ok(ready);
        }
        match networks::cached(&self.config().data_dir, ready.network.name())? {
            Some(network) if network != ready.network => {
                self.ensure(&network, request.own_address).await
            }
            _ => Ok(ready),
        }
    }

    /// Makes the veth pair. A bridge that has gone since it was looked at is made again, once.
    async fn make_port(
        &self,
        state: SegmentState,
        port: &mut PortSpec<'_>,
        request: &AttachRequest<'_>,
    ) -> Result<(SegmentState, Port), WiringError> {
        match attach::create_port(self.netlink(), port).await {
            Ok(made) => return Ok((state, made)),
            Err(error) if error.is_exists() => {
                let obstacle = self.obstacle(port, request).await;
                return Err(WiringError::InterfaceExists { obstacle, source: error });
            }
            Err(error) if self.is_intact(&state).await.unwrap_or(false) => return Err(error.into()),
            Err(error) => debug!("making the bridge again: {error}"),
        }
        let state = self.ensure(&state.network, request.own_address).await?;
        port.bridge = state.bridge;
        let made = attach::create_port(self.netlink(), port).await?;
        Ok((state, made))
    }
}

/// The MAC that follows from the address, if one of `addresses` is the network's: with another IPAM
/// plugin, none may be.
fn derived_mac(network: &Network, addresses: &[IpNetwork]) -> Option<MacAddr> {
    addresses.iter().find_map(|ip| {
        let (pool, host) = network.locate(ip.ip())?;
        Some(network.addresses(pool, host)?.mac)
    })
}

/// A requested MAC, which follows from no address of the network and is not the bridge's. Frames to
/// one that does lead to the container that has, or will have, the address, on whatever node.
fn free_mac(state: &SegmentState, mac: MacAddr) -> Result<MacAddr, WiringError> {
    let network = &state.network;
    let refuse =
        |holder| Err(WiringError::MacTaken { mac, network: network.name().clone(), holder });
    if mac == state.bridge_mac {
        return refuse(format!("bridge {}", device::bridge(network.vni())));
    }
    match addresses_of(network, mac) {
        None => Ok(mac),
        Some(addresses) => refuse(format!("address {addresses}")),
    }
}

/// The addresses of the network that `mac` follows from, for people.
fn addresses_of(network: &Network, mac: MacAddr) -> Option<String> {
    let (pool, host) = network.host_of(mac)?;
    let addresses: Vec<String> =
        network.addresses(pool, host)?.iter().map(|ip| ip.to_string()).collect();
    Some(addresses.join(" and "))
}
