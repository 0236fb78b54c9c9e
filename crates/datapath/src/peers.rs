//! Addresses on other nodes: the input that every way of reaching them has in common.
//!
//! A block says it all: it lies behind one VTEP, and every address in it has the MAC that follows
//! from it. Endpoints are the exceptions, one address each. Nothing above this crate enumerates the
//! addresses of a block.

pub mod bridged;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use weft_model::{Block, MacAddr, Network};

/// The addresses of one network that live on other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerTable {
    /// Blocks of other nodes, with the VTEPs of their owners. Neither this node's blocks nor those
    /// of nodes that cannot be reached are among them.
    pub blocks: BTreeMap<Block, IpAddr>,
    /// Exceptions to the rule of blocks, by address.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
}

/// The exception for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The address is in use on another node.
    At {
        /// The MAC that answers for it.
        mac: MacAddr,
        /// The VTEP of the node.
        vtep: IpAddr,
    },
    /// The address lives on this node: it is not to be programmed.
    Here,
    /// The address lives on a node that cannot be reached: it is not to be programmed.
    Unreachable,
}

/// The MAC of a remote address, and the VTEP that it lies behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) mac: MacAddr,
    pub(crate) vtep: IpAddr,
}

impl PeerTable {
    /// The MAC and VTEP of `address`; none if it is not to be programmed.
    pub(crate) fn remote(&self, network: &Network, address: IpAddr) -> Option<Remote> {
        match self.endpoints.get(&address) {
            Some(Endpoint::At { mac, vtep }) => Some(Remote { mac: *mac, vtep: *vtep }),
            Some(Endpoint::Here | Endpoint::Unreachable) => None,
            None => {
                let (index, host) = network.locate(address)?;
                let pool = network.pool(index)?;
                let vtep = self.blocks.get(&Block::containing(index, host, pool.block_bits()))?;
                let mac = pool.is_assignable(host).then(|| pool.addresses(index, host).mac)?;
                Some(Remote { mac, vtep: *vtep })
            }
        }
    }

    /// The addresses of all blocks; those of one host number in ascending order.
    pub(crate) fn block_addresses<'a>(
        &'a self,
        network: &'a Network,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        self.blocks.keys().flat_map(|block| addresses_of(network, *block))
    }

    /// The addresses for which the two tables may differ. Takes time for the blocks and endpoints
    /// of the tables, but for the addresses of changed blocks only.
    pub(crate) fn changed(&self, new: &Self, network: &Network) -> BTreeSet<IpAddr> {
        let blocks = differing(&self.blocks, &new.blocks);
        let endpoints = differing(&self.endpoints, &new.endpoints);
        let of_blocks = blocks.flat_map(|block| addresses_of(network, block));
        of_blocks.chain(endpoints).collect()
    }
}

fn addresses_of(network: &Network, block: Block) -> impl Iterator<Item = IpAddr> + '_ {
    network.addresses_of(block).flat_map(|addresses| addresses.iter())
}

/// The keys that only one of the maps has, or that they have with different values.
fn differing<'a, K: Ord + Copy, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + 'a {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    gone.chain(changed.map(|(key, _)| key)).copied()
}

/// The entries that a pass changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries added or changed.
    pub set: usize,
    /// Entries removed.
    pub removed: usize,
    /// Entries that the kernel refused.
    pub failed: usize,
}

impl Report {
    /// Returns whether anything was different.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries set, {} removed", self.set, self.removed)?;
        if self.failed > 0 {
            write!(f, ", {} refused", self.failed)?;
        }
        Ok(())
    }
}
