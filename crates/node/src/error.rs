//! What can go wrong, in words for the person on call.

use std::path::PathBuf;
use std::time::Duration;

use weft_blocks::{Holder, LedgerError};
use weft_model::spec::Difference;
use weft_model::{ModelError, NetworkName, NodeName};
use weft_store::StoreError;

/// What can go wrong between a node, its files and the cluster store.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration file cannot be used.
    #[error("node configuration {path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The node's ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The cluster store failed or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network does not exist, and nothing says how to make it.
    #[error(
        "network {network} does not exist in the {store}; name a subnet in the configuration's \
         ipam section, or create the network with `weftctl network create {network} --subnet ...`"
    )]
    NoSuchNetwork {
        /// The network.
        network: NetworkName,
        /// Where it was looked for.
        store: String,
    },
    /// The configuration contradicts the network that exists.
    #[error(
        "{key} {asked} is not what network {network} has ({stored}); change the configuration, add \
         a subnet with `weftctl network extend`, or remove the network and create it anew", key = difference.key, asked = difference.asked,
        stored = difference.stored
    )]
    Contradiction {
        /// The network.
        network: NetworkName,
        /// The key and both its values.
        difference: Difference,
    },
    /// A VNI is another network's.
    #[error("vni {vni} belongs to network {owner}; choose another, or leave `vni` out")]
    VniTaken {
        /// The VNI.
        vni: u32,
        /// Whose it is.
        owner: String,
    },
    /// Another machine goes by this node's name.
    #[error(
        "node name {node} belongs to machine {holder}, and this is machine {own}; give one of \
         them another `node` name in its configuration, or, if machine {holder} is gone for good, \
         run `weftctl node remove {node}`"
    )]
    NameTaken {
        /// The name.
        node: NodeName,
        /// The machine that has it.
        holder: String,
        /// This machine.
        own: String,
    },
    /// The node to be removed is alive.
    #[error(
        "node {node} is alive: its agent holds its record; stop weftd there first, or, if the \
         machine is gone, wait half a minute until its session has ended"
    )]
    NodeAlive {
        /// The node.
        node: NodeName,
    },
    /// The node has come back while it was being removed.
    #[error("node {node} came back while it was being removed; it keeps what is left to it")]
    NodeBack {
        /// The node.
        node: NodeName,
    },
    /// This node is being removed.
    #[error(
        "node {node} is being removed from the cluster; start weftd on it if it is to stay, or \
         finish with `weftctl node remove {node}`"
    )]
    BeingRemoved {
        /// The node.
        node: NodeName,
    },
    /// There is no node by this name.
    #[error("the {store} knows no node called {node}; `weftctl node list` shows those it knows")]
    NoSuchNode {
        /// The name.
        node: NodeName,
        /// The cluster store.
        store: String,
    },
    /// The address of an identity is in use by the same identity.
    #[error(
        "{identity} keeps its address {address} in network {network}, which is still in use by {holder}; \
         it is given again when that is deleted"
    )]
    StickyInUse {
        /// The identity.
        identity: String,
        /// Its address.
        address: String,
        /// The network.
        network: NetworkName,
        /// Who uses it.
        holder: String,
    },
    /// The caller has gone away.
    #[error("the caller of ADD for {holder} in network {network} is gone; nothing is reserved")]
    Unwanted {
        /// For whom.
        holder: Box<Holder>,
        /// The network.
        network: NetworkName,
    },
    /// Every block of the network has an owner and the own ones are full.
    #[error(
        "network {network} has no free address for node {node}: all {blocks} blocks are owned, by \
         {nodes} nodes{reason}; free some containers, or add a subnet: `weftctl network extend \
         {network} --subnet ...`"
    )]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// This node.
        node: NodeName,
        /// How many blocks the network has.
        blocks: u64,
        /// How many nodes own them.
        nodes: usize,
        /// What other nodes said when they were asked to lend, in words; perhaps nothing.
        reason: String,
    },
    /// A wanted address is held by another holder on this node.
    #[error("address {address} of network {network} is held by {holder}")]
    AddressTaken {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
        /// Who holds it.
        holder: Box<Holder>,
    },
    /// A wanted address lies in another node's block.
    #[error(
        "address {address} of network {network} lies in a block of node {owner}, which does not lend \
         it{reason}; ask for an address on that node, or for none in particular"
    )]
    AddressElsewhere {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
        /// The block's owner.
        owner: NodeName,
        /// Why it does not, in words; perhaps nothing.
        reason: String,
        /// Whether asking again is of no use: the address is somebody else's.
        settled: bool,
    },
    /// The block of an address went to another node.
    #[error(
        "{holder} has address {address} of network {network}, whose block belongs to another node by \
         now: this node was removed from the cluster while it was cut off; delete the container and \
         start it anew"
    )]
    Stranded {
        /// Who has it.
        holder: Box<Holder>,
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
    },
    /// A wanted address is never handed out.
    #[error(
        "address {address} cannot be given to a container of network {network}: it is a network, \
         broadcast or gateway address, excluded, or out of range"
    )]
    AddressWithheld {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
    },
    /// Others were faster, again and again.
    #[error(
        "could not claim a block of network {network}: other nodes were faster each time; retry"
    )]
    Contended {
        /// The network.
        network: NetworkName,
    },
    /// Another process of this node has been at it for too long.
    #[error(
        "another process on this node has been {work} network {network} for over {} s; the {store} \
         may be slow to answer", waited.as_secs()
    )]
    Busy {
        /// What it has been doing, up to the word "network".
        work: &'static str,
        /// The network.
        network: NetworkName,
        /// How long this one waited.
        waited: Duration,
        /// The cluster store.
        store: String,
    },
    /// The network still has containers.
    #[error(
        "network {network} is in use: {users}; stop its containers first, or force the removal"
    )]
    InUse {
        /// The network.
        network: NetworkName,
        /// By whom, in words.
        users: String,
    },
}

impl NodeError {
    /// The same error, with what other nodes said when they were asked to lend.
    pub(crate) fn with_reasons(mut self, reasons: &[String], is_settled: bool) -> Self {
        if let Self::AddressElsewhere { settled, .. } = &mut self {
            *settled = is_settled;
        }
        if let Self::AddressElsewhere { reason, .. } | Self::Exhausted { reason, .. } = &mut self
            && !reasons.is_empty()
        {
            *reason = format!(" ({})", reasons.join("; "));
        }
        self
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Ledger(LedgerError::Locked { .. })
            | Self::StickyInUse { .. }
            | Self::Exhausted { .. }
            | Self::AddressTaken { .. }
            | Self::AddressElsewhere { .. }
            | Self::Contended { .. }
            | Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// Whether the configuration, and not the world, is at fault.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Model(_)
                | Self::NoSuchNetwork { .. }
                | Self::Contradiction { .. }
                | Self::VniTaken { .. }
                | Self::NameTaken { .. }
                | Self::AddressWithheld { .. }
        )
    }
}
