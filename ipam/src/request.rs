//! A call, checked.

use std::path::Path;

use weft_cluster::{Cluster, NodeConfig, networks};
use weft_cni::{CniError, Request, Verb, code};
use weft_ledger::{Holder, Ledger, Sandbox};
use weft_model::{Attachment, ContainerId, IfName, Network, NetworkName, Sticky};
use weft_netconf::NetConf;

use crate::error::cni_error;

/// A call, checked, together with the node that it came to.
#[derive(Debug)]
pub struct Call {
    /// The network's name.
    pub network: NetworkName,
    /// The configuration of it.
    pub conf: NetConf,
    /// This node.
    pub node: NodeConfig,
}

impl Call {
    /// Checks what every verb needs.
    pub fn of(request: &Request) -> Result<Self, CniError> {
        // One that was edited since ADD must not keep a container from being deleted.
        let conf = match request.verb() {
            Verb::Del => NetConf::default(),
            _ => conf(request)?,
        };
        let node = NodeConfig::load(None, variable)
            .map_err(|error| cni_error("read the node's configuration", error))?;
        Ok(Self { network: network_name(request)?, conf, node })
    }

    /// A connection to the cluster store, which costs nothing until it is used.
    pub fn cluster(&self) -> Result<Cluster, CniError> {
        Cluster::connect(&self.node, variable)
            .map_err(|error| cni_error("prepare the cluster store", error))
    }

    /// The network as this node knows it.
    pub fn cached(&self) -> Result<Option<Network>, CniError> {
        networks::cached(&self.node.data_dir, &self.network)
            .map_err(|error| self.error("read the network's definition", error))
    }

    /// The ledger of `network`.
    pub fn ledger(&self, network: Network) -> Result<Ledger, CniError> {
        Ledger::open(&self.node.data_dir, network)
            .map_err(|error| self.error("open the node's ledger", error))
    }

    /// The CNI error for `error`, with what was tried, the network and the node.
    pub fn error(&self, what: &str, error: impl Into<weft_allocator::AllocatorError>) -> CniError {
        let Self { network, node, .. } = self;
        cni_error(&format!("{what} (network {network}, node {})", node.node), error)
    }
}

/// The network that the call is about.
pub fn network_name(request: &Request) -> Result<NetworkName, CniError> {
    NetworkName::new(request.network_name())
        .map_err(|error| CniError::new(code::INVALID_CONFIG, error.to_string()))
}

/// weft's keys of the configuration.
pub fn conf(request: &Request) -> Result<NetConf, CniError> {
    NetConf::parse(request.config())
        .map_err(|error| CniError::new(code::INVALID_CONFIG, error.to_string()))
}

/// The attachment that the call is about.
pub fn attachment(request: &Request) -> Result<Attachment, CniError> {
    let invalid =
        |error: weft_model::ModelError| CniError::new(code::INVALID_ENVIRONMENT, error.to_string());
    Ok(Attachment {
        network: network_name(request)?,
        container_id: ContainerId::new(request.container_id()).map_err(invalid)?,
        ifname: IfName::new(request.ifname()).map_err(invalid)?,
    })
}

/// The holder of the address: the attachment.
pub fn holder(request: &Request) -> Result<Holder, CniError> {
    Ok(Holder::from(&attachment(request)?))
}

/// The identity by which the attachment keeps its address, if it has one: what the caller names, or
/// the pod's namespace and name. A container has an address in a network for each interface.
pub fn sticky(request: &Request, conf: &NetConf) -> Result<Option<Sticky>, CniError> {
    let arg = |key| request.environment().arg(key);
    let identity = match request.sticky_identity()? {
        Some(identity) => Some(identity),
        None if conf.sticky_pods => match (arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME")) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            _ => None,
        },
        None => None,
    };
    Ok(identity.map(|identity| Sticky {
        identity: format!("{identity}@{}", request.ifname()),
        keep: conf.sticky_seconds,
    }))
}

/// The sandbox that the attachment is for, if the runtime names one.
pub fn sandbox(request: &Request) -> Option<Sandbox> {
    request.netns().map(|netns| Sandbox::observe(Path::new(netns)))
}

/// A variable of this process.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
