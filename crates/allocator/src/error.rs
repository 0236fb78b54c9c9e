//! Errors of getting, lending and freeing addresses, for the person on call.

use std::fmt;
use std::net::IpAddr;

use weft_cluster::ClusterError;
use weft_files::FileError;
use weft_ledger::ledger::Want;
use weft_ledger::{Holder, Ledger};
use weft_model::{ModelError, NetworkName, NodeName, PreparedId, Subnet};
use weft_store::StoreError;

/// Errors of getting, lending and freeing addresses.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// The node's files or the cluster store failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The address of an identity is in use by the same identity.
    #[error(
        "{identity} keeps its address {address} in network {network}, which is still in use by \
         {holder}; it is given again when that is deleted"
    )]
    StickyInUse {
        /// The identity.
        identity: String,
        /// Its address.
        address: String,
        /// The network.
        network: NetworkName,
        /// Its user.
        holder: String,
    },
    /// The address of an identity lies in another node's block, and that node does not lend it now.
    #[error(
        "{identity} keeps its address {address} in network {network}, which is of a block of node \
         {owner}, and that node does not lend it{reason}; it is given again once weftd runs on \
         node {owner} and no container there has it"
    )]
    StickyElsewhere {
        /// The identity.
        identity: String,
        /// Its address.
        address: String,
        /// The network.
        network: NetworkName,
        /// The block's owner.
        owner: NodeName,
        /// The reason of that node, in words; may be empty.
        reason: String,
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
        "network {network} has no free address for node {node}: {usage}{reason}; try again when \
         containers have gone, or add a subnet: `weftctl network extend {network} --subnet ...`"
    )]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// This node.
        node: NodeName,
        /// The network's subnets, and the nodes that have them.
        usage: Box<Usage>,
        /// The other nodes' reasons not to lend, in words; may be empty.
        reason: String,
    },
    /// The node is drained, and its own blocks do not have the address.
    #[error(
        "node {node} is drained: it claims no block of network {network} and borrows no address, \
         and its own blocks have none to give; start the container on another node, or run \
         `weftctl node undrain {node}`"
    )]
    Drained {
        /// This node.
        node: NodeName,
        /// The network.
        network: NetworkName,
    },
    /// A wanted address is held by another holder on this node.
    #[error(
        "address {address} of network {network} is held by {holder}; ask for another one, or try \
         again when it is free"
    )]
    AddressTaken {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
        /// Its holder.
        holder: Box<Holder>,
    },
    /// A wanted address lies in another node's block.
    #[error(
        "address {address} of network {network} lies in a block of node {owner}, which does not \
         lend it{reason}; ask for an address on that node, or for none in particular"
    )]
    AddressElsewhere {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
        /// The block's owner.
        owner: NodeName,
        /// The reason of that node, in words; may be empty.
        reason: String,
        /// True if asking again is of no use: another holder has the address.
        settled: bool,
    },
    /// The block of an address went to another node.
    #[error(
        "{holder} has address {address} of network {network}, whose block belongs to another \
         node: this node was removed from the cluster while it was cut off; delete the container \
         and create it again"
    )]
    Stranded {
        /// Its holder.
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
    /// A wanted address is none of the network's.
    #[error("requested address {address} lies in no subnet of network {network}")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
    },
    /// Several addresses are wanted that differ in their host numbers.
    #[error(
        "requested addresses {addresses} do not go together: in network {network} a container has \
         one host number, the same in each family"
    )]
    AddressesApart {
        /// The addresses.
        addresses: String,
        /// The network.
        network: NetworkName,
    },
    /// The holder has another address than the wanted one.
    #[error(
        "requested address {wanted}, but {holder} already holds {held} in network {network}; \
         delete the attachment first"
    )]
    HolderHasOther {
        /// The wanted address.
        wanted: IpAddr,
        /// The address that it has.
        held: String,
        /// The holder.
        holder: Box<Holder>,
        /// The network.
        network: NetworkName,
    },
    /// No address is reserved under the id.
    #[error(
        "no address of network {network} is reserved for {id}: it was released, or its lease \
         ended; reserve one again"
    )]
    NotPrepared {
        /// The id.
        id: PreparedId,
        /// The network.
        network: NetworkName,
    },
    /// The lease of a prepared address is over.
    #[error(
        "the lease of {address} of network {network} for {id} is over, and another container may \
         get the address; reserve one again"
    )]
    LeaseOver {
        /// The id.
        id: PreparedId,
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
    },
    /// The attachment that a prepared address is for has another one.
    #[error(
        "{holder} already holds {held} in network {network} and cannot have the address that is \
         reserved for {id}; delete the attachment first"
    )]
    Occupied {
        /// The id.
        id: PreparedId,
        /// The address that it has.
        held: String,
        /// The attachment.
        holder: Box<Holder>,
        /// The network.
        network: NetworkName,
    },
}

/// The subnets of a network whose blocks are all owned, and who owns them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The subnets of each pool, with the count of addresses that the pool has to give.
    pub pools: Vec<(Vec<Subnet>, u64)>,
    /// Count of the network's blocks that have an address to give.
    pub blocks: u64,
    /// Count of this node's blocks.
    pub own: u64,
    /// Count of the addresses that are held in them.
    pub held: u32,
    /// Count of the nodes that own the other blocks.
    pub others: usize,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pools, blocks, own, held, others } = self;
        for (i, (subnets, addresses)) in pools.iter().enumerate() {
            let subnets: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            let between = if i == 0 { "" } else { ", " };
            write!(f, "{between}{} ({addresses} addresses)", subnets.join(" and "))?;
        }
        if *others == 0 {
            return write!(
                f,
                ": all {blocks} blocks are this node's, which holds {held} addresses of them"
            );
        }
        let rest = blocks.saturating_sub(*own);
        let nodes = if *others == 1 { "node" } else { "nodes" };
        write!(
            f,
            ": of {blocks} blocks, {own} are this node's, which holds {held} addresses of them, \
             and {rest} are of {others} other {nodes}"
        )
    }
}

impl From<FileError> for AllocatorError {
    fn from(error: FileError) -> Self {
        Self::Cluster(error.into())
    }
}

impl From<StoreError> for AllocatorError {
    fn from(error: StoreError) -> Self {
        Self::Cluster(error.into())
    }
}

impl From<ModelError> for AllocatorError {
    fn from(error: ModelError) -> Self {
        Self::Cluster(error.into())
    }
}

impl AllocatorError {
    /// The same error, with the answers of the nodes that were asked to lend.
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

    /// Returns whether the same request may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_transient(),
            Self::StickyInUse { .. }
            | Self::StickyElsewhere { .. }
            | Self::Exhausted { .. }
            | Self::Drained { .. }
            | Self::AddressTaken { .. }
            | Self::AddressElsewhere { .. } => true,
            Self::Unwanted { .. }
            | Self::Stranded { .. }
            | Self::AddressWithheld { .. }
            | Self::AddressOutside { .. }
            | Self::AddressesApart { .. }
            | Self::HolderHasOther { .. }
            | Self::NotPrepared { .. }
            | Self::LeaseOver { .. }
            | Self::Occupied { .. } => false,
        }
    }

    /// Returns whether the configuration is at fault, not the state of node or cluster.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_configuration(),
            Self::AddressWithheld { .. }
            | Self::AddressOutside { .. }
            | Self::AddressesApart { .. }
            | Self::HolderHasOther { .. } => true,
            _ => false,
        }
    }
}

/// The wanted address in words.
pub(crate) fn shown(ledger: &Ledger, want: Want) -> String {
    match want {
        Want::Any => "(any)".into(),
        Want::Exactly(pool, host) => ledger
            .network()
            .addresses(pool, host)
            .map_or_else(|| format!("number {host} of pool {pool}"), |a| a.to_string()),
    }
}
