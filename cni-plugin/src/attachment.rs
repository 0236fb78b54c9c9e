//! A call, checked, together with the node that it came to.

use weft_cluster::{Cluster, ClusterError, NodeConfig};
use weft_cni::{CniError, Request, code};
use weft_datapath::netlink::Netlink;
use weft_model::{Attachment, ContainerId, IfName, MacAddr, NetworkName, device};
use weft_netconf::NetConf;
use weft_wiring::setup::OwnAddress;
use weft_wiring::{Host, WiringError};

use crate::error::{cni_error, kernel_error};

/// What every verb on an attachment needs.
pub(crate) struct Call {
    /// Which attachment.
    pub(crate) attachment: Attachment,
    /// What the configuration says of the network.
    pub(crate) conf: NetConf,
    /// The network on this host.
    pub(crate) host: Host,
    /// The name of the host end of the attachment's veth.
    pub(crate) host_end: String,
    /// The IPAM plugin, if the configuration names one.
    ipam: Option<String>,
}

impl Call {
    /// Checks a call about an attachment.
    pub(crate) fn of(request: &Request) -> Result<Self, CniError> {
        let attachment = attachment(request)?;
        let host_end = device::host_end(&attachment);
        let ipam = request.ipam_type()?;
        Ok(Self { conf: conf(request)?, host: host()?, attachment, host_end, ipam })
    }

    /// Which address this host takes in the network: none that the IPAM plugin may give away.
    pub(crate) fn own_address(&self) -> OwnAddress {
        match self.ipam.as_deref() {
            None | Some("weft-ipam") => OwnAddress::Reserved,
            Some(_) => OwnAddress::Gateway,
        }
    }

    /// Whether the attachment's veth is there, or may be.
    pub(crate) async fn is_attached(&self) -> bool {
        !matches!(self.host.netlink().link(&self.host_end).await, Ok(None))
    }

    /// The CNI error for `error`, with what was tried, the attachment and the node.
    pub(crate) fn error(&self, what: &str, error: impl Into<WiringError>) -> CniError {
        let node = &self.host.config().node;
        cni_error(&format!("{what} ({}, node {node})", self.attachment), &error.into())
    }
}

/// The MAC that the caller asks for by name, if it does.
pub(crate) fn requested_mac(request: &Request) -> Result<Option<MacAddr>, CniError> {
    let Some(text) = request.requested_mac()? else { return Ok(None) };
    let mac: MacAddr = text
        .parse()
        .map_err(|error| CniError::new(code::INVALID_ENVIRONMENT, format!("requested {error}")))?;
    if !mac.is_usable() {
        let msg = format!("requested mac {mac}: an interface cannot carry a group or zero address");
        return Err(CniError::new(code::INVALID_ENVIRONMENT, msg));
    }
    Ok(Some(mac))
}

/// The attachment that the call is about.
pub(crate) fn attachment(request: &Request) -> Result<Attachment, CniError> {
    let invalid =
        |error: weft_model::ModelError| CniError::new(code::INVALID_ENVIRONMENT, error.to_string());
    Ok(Attachment {
        network: network_name(request)?,
        container_id: ContainerId::new(request.container_id()).map_err(invalid)?,
        ifname: IfName::new(request.ifname()).map_err(invalid)?,
    })
}

/// The network that the call is about.
pub(crate) fn network_name(request: &Request) -> Result<NetworkName, CniError> {
    NetworkName::new(request.network_name())
        .map_err(|error| CniError::new(code::INVALID_CONFIG, error.to_string()))
}

/// weft's keys of the configuration.
pub(crate) fn conf(request: &Request) -> Result<NetConf, CniError> {
    NetConf::parse(request.config())
        .map_err(|error| CniError::new(code::INVALID_CONFIG, error.to_string()))
}

/// This host.
pub(crate) fn host() -> Result<Host, CniError> {
    let config = node_config()?;
    let cluster = Cluster::connect(&config, variable).map_err(unreadable)?;
    Ok(Host::new(config, cluster, netlink()?))
}

/// The node's configuration.
pub(crate) fn node_config() -> Result<NodeConfig, CniError> {
    NodeConfig::load(None, variable).map_err(unreadable)
}

/// A connection to the kernel.
pub(crate) fn netlink() -> Result<Netlink, CniError> {
    Netlink::open().map_err(|error| kernel_error("open netlink", error))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn unreadable(error: ClusterError) -> CniError {
    cni_error("read the node's configuration", &error.into())
}
