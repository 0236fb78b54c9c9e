//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;
use weft_model::{Block, NetworkName, NodeName, Subnet};

use crate::output::Format;

/// Networks, nodes, blocks and addresses of a weft cluster.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Arguments {
    /// The node's configuration file [default: $WEFT_CONFIG, or /etc/weft/weft.toml]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A part of weft to work on.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Networks: create, extend, list, inspect, remove
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Nodes: list, drain, undrain, remove
    #[command(subcommand)]
    Node(NodeCommand),
    /// Blocks of addresses: list, move
    #[command(subcommand)]
    Block(BlockCommand),
    /// Addresses: show what is in use, check what is recorded, release what is held for nothing
    #[command(subcommand)]
    Ipam(IpamCommand),
}

/// A command about networks.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network; creating it again as it is changes nothing
    Create(CreateNetwork),
    /// Add subnets to a network; its containers stay, and adding them again changes nothing
    Extend(ExtendNetwork),
    /// List all networks
    List,
    /// Show a network, its blocks and what this node holds of it
    Inspect {
        /// The network's name
        name: NetworkName,
    },
    /// Remove a network that nobody uses
    Remove {
        /// The network's name
        name: NetworkName,
        /// Remove it even if nodes own blocks of it or containers are attached
        #[arg(long)]
        force: bool,
    },
}

/// A network to create.
#[derive(Debug, Args)]
pub(crate) struct CreateNetwork {
    /// The network's name, as the `name` of its CNI configurations
    pub(crate) name: NetworkName,
    #[command(flatten)]
    pub(crate) pools: Pools,
    /// The VXLAN network identifier, 1 to 16777215 [default: the next free one from 10000]
    #[arg(long)]
    pub(crate) vni: Option<u32>,
    /// The MTU in bytes [default: each node's underlay MTU less the encapsulation]
    #[arg(long)]
    pub(crate) mtu: Option<u32>,
    /// No way out: no address on the hosts, no routes, no masquerading
    #[arg(long)]
    pub(crate) internal: bool,
    /// Traffic that leaves the network takes the node's address [default: on, unless --internal]
    #[arg(long, value_enum)]
    pub(crate) ip_masq: Option<Switch>,
}

/// Subnets to add to a network.
#[derive(Debug, Args)]
pub(crate) struct ExtendNetwork {
    /// The network's name
    pub(crate) name: NetworkName,
    #[command(flatten)]
    pub(crate) pools: Pools,
}

/// Subnets, and what of them to hand out.
#[derive(Debug, Args)]
pub(crate) struct Pools {
    /// A subnet; one of each family gives containers both. Repeat in pairs for more pools
    #[arg(long, required = true)]
    pub(crate) subnet: Vec<Subnet>,
    /// The gateway's address in one of the subnets [default: the subnet's first host]
    #[arg(long)]
    pub(crate) gateway: Vec<IpAddr>,
    /// The first address to hand out [default: the subnet's first]
    #[arg(long)]
    pub(crate) range_start: Option<IpAddr>,
    /// The last address to hand out [default: the subnet's last]
    #[arg(long)]
    pub(crate) range_end: Option<IpAddr>,
    /// An address or subnet never to hand out; may be repeated
    #[arg(long)]
    pub(crate) exclude: Vec<IpNetwork>,
    /// The size of a block as a power of two [default: by the size of the subnet]
    #[arg(long, value_name = "BITS")]
    pub(crate) block_bits: Option<u8>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// A command about nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List all nodes
    List,
    /// Take a node out of service: it claims no more blocks and gives back those that no container
    /// needs; its running containers stay
    Drain {
        /// The node's name
        name: NodeName,
    },
    /// Put a drained node into service again
    Undrain {
        /// The node's name
        name: NodeName,
    },
    /// Remove a node that is gone for good: its blocks are free to claim then
    Remove {
        /// The node's name
        name: NodeName,
    },
}

/// A command about addresses.
#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// Show how much is in use: of networks, pools, nodes and blocks
    Show {
        /// Only this network
        #[arg(long)]
        network: Option<NetworkName>,
    },
    /// Compare the cluster store, this node's files and its devices; the exit code is 1 if they
    /// differ
    Check {
        /// Only this network
        #[arg(long)]
        network: Option<NetworkName>,
        /// Put right what can be put right without harm
        #[arg(long)]
        fix: bool,
    },
    /// Free an address that a container of this node holds and does not use any more
    Release {
        /// The address
        address: IpAddr,
        /// Its network
        #[arg(long)]
        network: NetworkName,
        /// Free it even if the container is alive
        #[arg(long)]
        force: bool,
    },
}

/// A command about blocks.
#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// List all blocks and their owners
    List {
        /// Only those of this network
        #[arg(long)]
        network: Option<NetworkName>,
    },
    /// Make a block of which no address is held another node's; weftd must run on both
    Move {
        /// The block, as `weftctl block list` shows it
        block: Block,
        /// Its network
        #[arg(long)]
        network: NetworkName,
        /// The node that is to own it
        #[arg(long, value_name = "NODE")]
        to: NodeName,
    },
}
