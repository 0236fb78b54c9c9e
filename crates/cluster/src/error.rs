//! Errors between a node, its files and the cluster store, for the person on call.

use std::path::PathBuf;
use std::time::Duration;

use weft_files::FileError;
use weft_model::spec::Difference;
use weft_model::{ModelError, NetworkName, NodeName};
use weft_store::StoreError;

/// Errors between a node, its files and the cluster store.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The configuration file cannot be used.
    #[error("node configuration {path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The node's own files failed.
    #[error(transparent)]
    File(#[from] FileError),
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
        /// The cluster store that was searched.
        store: String,
    },
    /// The configuration contradicts the network that exists.
    #[error(
        "{key} {asked} is not what network {network} has ({stored}); change the configuration, \
         {other}remove the network and create it again", key = difference.key,
        asked = difference.asked, stored = difference.stored,
        other = if difference.key == "subnet" {
            "add the subnet with `weftctl network extend`, or "
        } else {
            "or "
        }
    )]
    Contradiction {
        /// The network.
        network: NetworkName,
        /// The key and both its values.
        difference: Difference,
    },
    /// The record of a network cannot be read, so its subnets are not known.
    #[error(
        "no network is made or extended while the subnets of network {network} cannot be told: \
         {fault}; write the record again, or remove the network with `weftctl network remove \
         --force {network}`"
    )]
    Unreadable {
        /// The network.
        network: NetworkName,
        /// The fault of its record.
        fault: StoreError,
    },
    /// A VNI is another network's.
    #[error("vni {vni} belongs to network {owner}; choose another, or leave `vni` out")]
    VniTaken {
        /// The VNI.
        vni: u32,
        /// The network that has it.
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
    /// This node's files are of another name.
    #[error(
        "this is node {noted} by its files in {dir}, and is called {node} now, by its \
         configuration or its host name; under another name it would take what it holds for \
         another node's. Set `node = \"{noted}\"` in its configuration; or, to rename it, delete \
         its containers, stop weftd, reboot or empty {dir}, and then run `weftctl node remove \
         {noted}`", dir = data_dir.display()
    )]
    Renamed {
        /// The name that is noted.
        noted: NodeName,
        /// The name that the node has now.
        node: NodeName,
        /// The directory of its files.
        data_dir: PathBuf,
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
    /// The store has no record of this node, although it was registered.
    #[error(
        "the {store} has neither network {network} nor a record of its removal: it was emptied or \
         restored; what this host has of the network is kept, and weftd writes it back"
    )]
    NotInStore {
        /// The network.
        network: NetworkName,
        /// The cluster store.
        store: String,
    },
    /// The store was emptied or replaced.
    #[error(
        "the {store} is not the one that this node knew: it was emptied, or replaced by another; \
         weftd on each node writes back what is its own, and until then nothing is claimed"
    )]
    StoreLost {
        /// The cluster store.
        store: String,
    },
    /// Nodes are writing back what the store has lost.
    #[error(
        "the {store} was emptied, and nodes are writing back what is their own; nothing is claimed \
         until that is done, within a minute; retry"
    )]
    Recovering {
        /// The cluster store.
        store: String,
    },
    /// The store has another network of that name, and no record that this node's was removed.
    #[error(
        "network {network} in the {store} is another one than this host's: the store was emptied, \
         and the network was made again before this host could write its own back; delete this \
         host's containers in {network}, and its weftd joins the new one"
    )]
    AnotherNetwork {
        /// The network.
        network: NetworkName,
        /// The cluster store.
        store: String,
    },
    /// The network that this host has was removed.
    #[error(
        "network {network} was removed from the cluster, and this host still has it; delete its \
         containers here, and weftd takes it away"
    )]
    Removed {
        /// The network.
        network: NetworkName,
    },
    /// The VNI is that of a network that was removed and that some nodes have not left.
    #[error(
        "vni {vni} is still that of network {owner}, which was removed and which node {nodes} has \
         not left; delete the containers there and start weftd, or remove the node, or choose \
         another vni"
    )]
    VniNotFree {
        /// The VNI.
        vni: u32,
        /// The removed network.
        owner: NetworkName,
        /// The nodes that have not left it.
        nodes: String,
    },
    /// There is no node by this name.
    #[error("the {store} knows no node called {node}; `weftctl node list` shows those it knows")]
    NoSuchNode {
        /// The name.
        node: NodeName,
        /// The cluster store.
        store: String,
    },
    /// Others were faster, again and again.
    #[error(
        "could not claim a block of network {network}: other nodes were faster each time; retry"
    )]
    Contended {
        /// The network.
        network: NetworkName,
    },
    /// The record of this node was written by others each time.
    #[error(
        "could not write the record of node {node} in the {store}: others changed it at each of \
         {tries} attempts; try again, and if that does not help, see with `weftctl node list` \
         whether two hosts have this name"
    )]
    RecordContended {
        /// This node.
        node: NodeName,
        /// The cluster store.
        store: String,
        /// Count of the attempts.
        tries: usize,
    },
    /// The lease of this node's agent ended before anything could be bound to it.
    #[error(
        "could not note in the {store} that the agent of node {node} runs: the lease ended right \
         after it was granted; the agent tries again with another"
    )]
    LeaseEnded {
        /// This node.
        node: NodeName,
        /// The cluster store.
        store: String,
    },
    /// Another process of this node has been at it for too long.
    #[error(
        "another process on this node has been {work} network {network} for over {} s; the {store} \
         may be slow to answer", waited.as_secs()
    )]
    Busy {
        /// The work of that process, up to the word "network".
        work: &'static str,
        /// The network.
        network: NetworkName,
        /// The time that this process waited.
        waited: Duration,
        /// The cluster store.
        store: String,
    },
    /// The network still has containers.
    #[error("network {network} is in use: {users}; stop its containers first, or use --force")]
    InUse {
        /// The network.
        network: NetworkName,
        /// By whom, in words.
        users: String,
    },
}

impl ClusterError {
    /// Returns whether the same request may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::NotInStore { .. }
            | Self::StoreLost { .. }
            | Self::Recovering { .. }
            | Self::AnotherNetwork { .. }
            | Self::Removed { .. }
            | Self::File(FileError::Locked { .. } | FileError::AtWork { .. })
            | Self::Contended { .. }
            | Self::RecordContended { .. }
            | Self::LeaseEnded { .. }
            | Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the configuration is at fault, not the state of node or cluster.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Model(_)
                | Self::NoSuchNetwork { .. }
                | Self::Contradiction { .. }
                | Self::VniTaken { .. }
                | Self::VniNotFree { .. }
                | Self::NameTaken { .. }
                | Self::Renamed { .. }
        )
    }
}
