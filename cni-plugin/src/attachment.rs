//! A call, checked, together with the node that it came to.

use weft_allocator::{AllocatorError, undo};
use weft_cluster::{Cluster, ClusterError, NodeConfig};
use weft_cni::{CniError, Request, code};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::Netns;
use weft_ipam::request::{attachment, conf, sticky, variable};
use weft_ledger::Holder;
use weft_model::{Attachment, MacAddr, Sticky};
use weft_netconf::NetConf;
use weft_wiring::attach::{Entry, Inside};
use weft_wiring::{Host, OwnAddress, WiringError};

use crate::error::cni_error;

/// A call about an attachment, with all that its verb needs.
pub(crate) struct Call {
    /// The attachment.
    pub(crate) attachment: Attachment,
    /// The configuration of the network.
    pub(crate) conf: NetConf,
    /// The network on this host.
    pub(crate) host: Host,
    /// The IPAM plugin, if the configuration names one.
    ipam: Option<String>,
}

impl Call {
    /// Checks a call about an attachment.
    pub(crate) fn of(request: &Request) -> Result<Self, CniError> {
        let attachment = attachment(request)?;
        let ipam = request.ipam_type()?;
        Ok(Self { conf: conf(request)?, host: host()?, attachment, ipam })
    }

    /// The call as the IPAM plugin would read it.
    pub(crate) fn known(&self) -> weft_ipam::request::Call {
        weft_ipam::request::Call {
            network: self.attachment.network.clone(),
            conf: self.conf.clone(),
            node: self.host.config().clone(),
        }
    }

    /// The address that this host takes in the network: none that the IPAM plugin may give away.
    pub(crate) fn own_address(&self) -> OwnAddress {
        match self.ipam.as_deref() {
            None | Some(weft_ipam::NAME) => OwnAddress::Reserved,
            Some(_) => OwnAddress::Gateway,
        }
    }

    /// The identity that the attachment keeps its address by, if it has had no address before.
    pub(crate) async fn new_identity(&self, request: &Request) -> Result<Option<Sticky>, CniError> {
        if self.ipam.as_deref() != Some(weft_ipam::NAME) {
            return Ok(None);
        }
        let Some(identity) = sticky(request, &self.conf)? else { return Ok(None) };
        let (data_dir, network) = (&self.host.config().data_dir, &self.attachment.network);
        let holder = Holder::from(&self.attachment);
        let is_new = undo::is_new(self.host.cluster(), data_dir, network, &holder, &identity).await;
        Ok(is_new.then_some(identity))
    }

    /// Frees what this ADD has reserved for a new identity.
    pub(crate) async fn forget(&self, identity: &Sticky) -> Result<(), AllocatorError> {
        let (data_dir, network) = (&self.host.config().data_dir, &self.attachment.network);
        let holder = Holder::from(&self.attachment);
        undo::undo(self.host.cluster(), data_dir, network, &holder, identity).await
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

/// The container's network namespace, entered. It must not be the plugin's own.
pub(crate) fn sandbox(request: &Request) -> Result<Inside, CniError> {
    let netns = open(request)?;
    let own = Netns::current().map_err(|error| invalid_netns(error.to_string()))?;
    if netns == own && !request.environment().allows_own_netns() {
        return Err(invalid_netns(format!(
            "CNI_NETNS {} is the plugin's own network namespace; a container needs one of its own",
            netns.path().display()
        )));
    }
    Inside::enter(netns, Entry::CallingThread)
        .map_err(|error| cni_error("enter the container's namespace", &error))
}

/// The container's network namespace, entered.
pub(crate) fn enter(request: &Request) -> Result<Inside, CniError> {
    Inside::enter(open(request)?, Entry::CallingThread)
        .map_err(|error| cni_error("enter the container's namespace", &error))
}

fn open(request: &Request) -> Result<Netns, CniError> {
    Netns::open(request.netns().unwrap_or_default())
        .map_err(|error| invalid_netns(format!("CNI_NETNS: {error}")))
}

fn invalid_netns(msg: String) -> CniError {
    CniError::new(code::INVALID_NETNS, msg)
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
    Netlink::open().map_err(|error| cni_error("open netlink", &error.into()))
}

fn unreadable(error: ClusterError) -> CniError {
    cni_error("read the node's configuration", &error.into())
}
