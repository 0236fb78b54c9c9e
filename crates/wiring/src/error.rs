//! Errors between the cluster and the kernel.

use weft_allocator::AllocatorError;
use weft_cluster::ClusterError;
use weft_datapath::DatapathError;
use weft_files::FileError;
use weft_model::{Attachment, MacAddr, NetworkName, Vni, mtu};
use weft_store::StoreError;

/// Errors of networks and containers on this host.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// An address, the node's files or the cluster store.
    #[error(transparent)]
    Allocator(#[from] AllocatorError),
    /// The kernel.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The attachment is there already, or something else with the name of one of its ends.
    #[error("{obstacle} ({source})")]
    InterfaceExists {
        /// The obstacle, and the remedy.
        obstacle: Obstacle,
        /// The kernel's refusal.
        source: DatapathError,
    },
    /// Another container of this host uses the address, by its MAC, and weft's files do not say so.
    #[error(
        "address {address} of network {network} is in use by {holder}, which does not hold it \
         according to this node's files: another IPAM plugin gave it, or the files were removed; \
         delete that container, or try again to get another address"
    )]
    AddressInUse {
        /// The address.
        address: String,
        /// The network.
        network: NetworkName,
        /// The container that uses it.
        holder: String,
    },
    /// The requested MAC is not the container's to have.
    #[error(
        "requested mac {mac} is that of {holder} in network {network}; request another one, which \
         follows from no address of the network"
    )]
    MacTaken {
        /// The MAC.
        mac: MacAddr,
        /// The network.
        network: NetworkName,
        /// The bridge or the address that has it.
        holder: String,
    },
    /// The network's packets do not fit into the underlay's.
    #[error(
        "network {network} has mtu {wanted}, but underlay interface {underlay} of this node \
         carries no more than {possible} inside VXLAN; lower the network's mtu or raise the \
         underlay's"
    )]
    MtuTooLarge {
        /// The network.
        network: NetworkName,
        /// The MTU in its definition.
        wanted: u32,
        /// The underlay interface.
        underlay: String,
        /// The largest MTU that fits.
        possible: u32,
    },
    /// The network is another one than the one that this host has by that name.
    #[error(
        "network {network} was removed and created again with vni {new}, and this host still has \
         containers in the old one (vni {old}); stop those first"
    )]
    Recreated {
        /// The network.
        network: NetworkName,
        /// The VNI that this host has it with.
        old: Vni,
        /// The VNI that it has now.
        new: Vni,
    },
    /// The underlay's own packets are too small for any overlay.
    #[error(
        "underlay interface {underlay} has mtu {mtu}, which leaves less than {} for the overlay; \
         raise it, or name another interface as `underlay` in the node's configuration",
        mtu::MINIMUM
    )]
    UnderlayTooSmall {
        /// The underlay interface.
        underlay: String,
        /// Its MTU.
        mtu: u32,
    },
}

/// A link that is in the way of an attachment.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The attachment's own: an ADD is repeated.
    #[error("{0} is attached already; DEL it first")]
    Attachment(Box<Attachment>),
    /// One in the container.
    #[error(
        "interface {0} exists in the container, and weft has not made it; remove or rename it, or \
         use another CNI_IFNAME"
    )]
    Interface(String),
    /// One on the host, of another program.
    #[error(
        "link {0} of this host has a name that weft needs, and is not weft's; remove or rename it"
    )]
    HostEnd(String),
}

impl WiringError {
    /// Returns whether the same request may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Allocator(error) => error.is_transient(),
            Self::AddressInUse { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the configuration is at fault, not the state of node or cluster.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Allocator(error) => error.is_configuration(),
            Self::MtuTooLarge { .. }
            | Self::MacTaken { .. }
            | Self::Datapath(DatapathError::MacHeld { .. }) => true,
            _ => false,
        }
    }
}

impl From<ClusterError> for WiringError {
    fn from(error: ClusterError) -> Self {
        Self::Allocator(error.into())
    }
}

impl From<FileError> for WiringError {
    fn from(error: FileError) -> Self {
        Self::Allocator(error.into())
    }
}

impl From<StoreError> for WiringError {
    fn from(error: StoreError) -> Self {
        Self::Allocator(error.into())
    }
}
