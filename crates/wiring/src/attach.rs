//! Connects a container to a network on this host.
//!
//! With the address known, the veth is made with its MAC in one message; then its port is
//! protected, and only then does the container's end go up: there is no carrier before the port
//! lets through that MAC alone. A failed attempt leaves nothing.
//!
//! The container's end goes into its sandbox and is configured there, or stays on the host under a
//! name of the caller's choice for another program to move and configure.

use ipnetwork::IpNetwork;
use log::debug;
use weft_cluster::networks;
use weft_datapath::attach::{self, InterfaceSpec, Port, PortSecurity, PortSpec};
pub use weft_datapath::attach::{Hairpin, Route};
use weft_datapath::netlink::Netlink;
pub use weft_datapath::netns::Entry;
use weft_datapath::netns::Netns;
use weft_model::{Attachment, IfName, MacAddr, Network, NetworkName, NetworkSpec, device};

use crate::error::WiringError;
use crate::host::Host;
use crate::node_address::OwnAddress;
use crate::segment_state::SegmentState;
use crate::undo::Undo;

/// A network that is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its definition.
    pub network: Network,
    /// Its devices.
    pub state: SegmentState,
}

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
    ) -> Result<Ready, WiringError> {
        let data_dir = &self.config().data_dir;
        if let Some(network) = networks::cached(data_dir, name)?
            && networks::agree(&network, spec).is_ok()
            && let Some(state) = SegmentState::recall(data_dir, &network)
            && self.is_intact(&state).await?
        {
            return Ok(Ready { network, state });
        }
        self.check_mtu(name, spec.mtu).await?;
        let network = networks::resolve(data_dir, self.cluster(), name, spec).await?;
        let state = self.ensure(&network, own).await?;
        Ok(Ready { network, state })
    }

    /// Connects a container to the network that is [`ready`](Self::ready). After an error nothing
    /// is left of the attempt; what an earlier one connected stays.
    pub async fn attach(
        &self,
        ready: Ready,
        request: &AttachRequest<'_>,
    ) -> Result<Attached, WiringError> {
        let mut undo = Undo::default();
        match self.connect(ready, request, &mut undo).await {
            Ok(attached) => Ok(attached),
            Err(error) => {
                undo.run().await;
                Err(error)
            }
        }
    }

    /// Returns whether the attachment's veth is there, or may be.
    pub async fn is_attached(&self, attachment: &Attachment) -> bool {
        !matches!(self.netlink().link(&device::host_end(attachment)).await, Ok(None))
    }

    async fn connect<'a>(
        &'a self,
        ready: Ready,
        request: &AttachRequest<'_>,
        undo: &mut Undo<'a>,
    ) -> Result<Attached, WiringError> {
        let attachment = request.attachment;
        let Ready { network, state } = self.extended(ready, request).await?;
        let mac = request.mac.unwrap_or_else(|| mac_for(&network, request));
        let host_end = device::host_end(attachment);
        let host_mac = MacAddr::from_seed(&host_end);
        let alias = format!("weft:{attachment}");
        let (ifname, netns) = match request.container_end {
            ContainerEnd::Inside(inside) => (&attachment.ifname, Some(&inside.netns)),
            ContainerEnd::OnHost(name) => (name, None),
        };
        let mut port = PortSpec {
            host_end: &host_end,
            host_mac,
            bridge: state.bridge,
            mtu: state.mtu,
            ifname: ifname.as_str(),
            mac,
            netns,
        };
        let made = self.make_port(&network, state, &mut port, request).await;
        if let Err(error) = &made
            && !matches!(error, WiringError::InterfaceExists { .. })
        {
            // The kernel may have made it, and only the answer was lost.
            let _ = attach::delete_port(self.netlink(), &host_end).await;
        }
        let (state, made_port) = made?;
        let made = host_end.clone();
        undo.push(async move { attach::delete_port(self.netlink(), &made).await });
        // Before there is a carrier: afterwards the host's end would have a link-local address
        // already.
        let security = PortSecurity {
            index: made_port.host_end,
            name: &host_end,
            alias: &alias,
            mac,
            hairpin: request.hairpin,
        };
        attach::secure_port(self.netlink(), &security).await?;
        if let ContainerEnd::Inside(inside) = request.container_end {
            let interface = InterfaceSpec {
                index: made_port.interface,
                ifname: ifname.as_str(),
                netns: &inside.netns,
                addresses: request.addresses,
                routes: request.routes,
            };
            attach::configure_interface(&inside.netlink, &interface).await?;
        }
        let bridge = device::bridge(network.vni());
        Ok(Attached { state, bridge, host_end, host_mac, mac })
    }

    /// The network with all the pools that the container's addresses lie in: the IPAM may be the
    /// first on this host to learn of a pool.
    async fn extended(
        &self,
        ready: Ready,
        request: &AttachRequest<'_>,
    ) -> Result<Ready, WiringError> {
        let is_known = |ip: &IpNetwork| ready.network.locate(ip.ip()).is_some();
        if request.own_address == OwnAddress::Gateway || request.addresses.iter().all(is_known) {
            return Ok(ready);
        }
        let cached = networks::cached(&self.config().data_dir, ready.network.name())?;
        let Some(network) = cached.filter(|cached| *cached != ready.network) else {
            return Ok(ready);
        };
        let state = self.ensure(&network, request.own_address).await?;
        Ok(Ready { network, state })
    }

    /// Makes the veth pair. A bridge that has gone since it was looked at is made again, once.
    async fn make_port(
        &self,
        network: &Network,
        state: SegmentState,
        port: &mut PortSpec<'_>,
        request: &AttachRequest<'_>,
    ) -> Result<(SegmentState, Port), WiringError> {
        match attach::create_port(self.netlink(), port).await {
            Ok(made) => return Ok((state, made)),
            Err(error) if error.is_exists() => {
                return Err(WiringError::InterfaceExists {
                    ifname: port.ifname.to_owned(),
                    attachment: Box::new(request.attachment.clone()),
                    source: error,
                });
            }
            Err(error) if self.is_intact(&state).await.unwrap_or(false) => return Err(error.into()),
            Err(error) => debug!("making the bridge again: {error}"),
        }
        let state = self.ensure(network, request.own_address).await?;
        port.bridge = state.bridge;
        let made = attach::create_port(self.netlink(), port).await?;
        Ok((state, made))
    }
}

/// The MAC that follows from the address; from the attachment where no address is the network's, as
/// with another IPAM plugin.
fn mac_for(network: &Network, request: &AttachRequest<'_>) -> MacAddr {
    let derived = request.addresses.iter().find_map(|ip| {
        let (pool, host) = network.locate(ip.ip())?;
        Some(network.addresses(pool, host)?.mac)
    });
    derived.unwrap_or_else(|| MacAddr::from_seed(&format!("container/{}", request.attachment)))
}
