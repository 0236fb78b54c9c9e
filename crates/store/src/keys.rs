//! The layout of all keys, relative to the store's prefix.
//!
//! | key | value |
//! |---|---|
//! | `networks/<network>` | a network's definition |
//! | `store` | identity of the store's contents |
//! | `catalogue` | counter that grows with each change of the set of networks |
//! | `removed/<network id>` | record of a network's removal |
//! | `owned/<node>/<network id>` | marks a network in which the node owns blocks, or did |
//! | `vnis/<vni>` | name of the network with this VNI |
//! | `nodes/<node>` | a node's record |
//! | `alive/<node>` | heartbeat of a node: bound to its agent's lease |
//! | `blocks/<network id>/<group>/<pool>-<first>-<bits>` | owner of a block |
//! | `endpoints/<network id>/<group>/<block>/<address>` | node of an exception to its block |
//! | `identities/<network id>/<id>` | address of a stable identity, found by the identity |
//! | `sticky/<network id>/<block>/<id>` | the same, found by the block; both are written together |
//! | `requests/<lender>/<network id>/<loan>` | request to borrow an address, and the answer |
//! | `requests/<owner>/<network id>/<block>` | request to hand a block over to another node |
//! | `revisions/<shard>/<network>/<group>` | written with each change in the group |
//! | `usage/<node>` | how much of a node's blocks is in use; no node watches it |
//!
//! A `<network id>` is `<network>@<incarnation>`: what belongs to a network that was removed stays
//! apart from what belongs to one that was made later under the same name.
//!
//! Names consist of letters, digits, `_`, `.` and `-`, so each is one segment of a path, unescaped.
//! Each segment is in the form that weft writes, without leading zeros or signs: a key in another
//! form, or with parts that contradict each other, parses to `None`. No key is a directory of
//! another, so all keys are leaves in ZooKeeper's tree.

mod group;
mod revisions;

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use weft_model::{Block, LoanId, NetworkId, NetworkName, NodeName, StickyId, Vni};

pub use group::{Group, SHARDS, Shard};
pub use revisions::{in_transactions, with_revisions};

/// Prefix of all network definitions.
pub fn networks_prefix() -> &'static str {
    "networks/"
}

/// A network's definition.
pub fn network(name: &NetworkName) -> String {
    format!("networks/{name}")
}

/// The network that `key` defines.
pub fn network_of(key: &str) -> Option<NetworkName> {
    let [name] = segments(key, "networks/")?;
    canonical(name)
}

/// The identity of the store's contents.
pub fn store() -> &'static str {
    "store"
}

/// Counter of changes to the set of networks. Creating a network requires it unchanged since all
/// other networks were read.
pub fn catalogue() -> &'static str {
    "catalogue"
}

/// Prefix of the records of removals.
pub fn removed_prefix() -> &'static str {
    "removed/"
}

/// The record of a network's removal.
pub fn removed(network: &NetworkId) -> String {
    format!("removed/{network}")
}

/// The network that `key` is the record of the removal of.
pub fn removed_of(key: &str) -> Option<NetworkId> {
    let [network] = segments(key, "removed/")?;
    canonical(network)
}

/// Prefix of the networks in which a node owns blocks.
pub fn owned_prefix(node: &NodeName) -> String {
    format!("owned/{node}/")
}

/// Mark of a network in which a node owns blocks, or did.
pub fn owned(node: &NodeName, network: &NetworkId) -> String {
    format!("owned/{node}/{network}")
}

/// The network that `key` marks.
pub fn owned_of(key: &str) -> Option<NetworkId> {
    let [_, network] = segments(key, "owned/")?;
    canonical(network)
}

/// Prefix of all VNIs in use.
pub fn vnis_prefix() -> &'static str {
    "vnis/"
}

/// The network with a VNI.
pub fn vni(vni: Vni) -> String {
    format!("vnis/{vni}")
}

/// Prefix of all nodes' records.
pub fn nodes_prefix() -> &'static str {
    "nodes/"
}

/// A node's record.
pub fn node(name: &NodeName) -> String {
    format!("nodes/{name}")
}

/// The node that `key` is the record of.
pub fn node_of(key: &str) -> Option<NodeName> {
    let [name] = segments(key, "nodes/")?;
    canonical(name)
}

/// Prefix of all nodes' heartbeats.
pub fn alive_prefix() -> &'static str {
    "alive/"
}

/// A node's heartbeat: exists while its agent renews its lease.
pub fn alive(node: &NodeName) -> String {
    format!("alive/{node}")
}

/// The node that `key` is the heartbeat of.
pub fn alive_of(key: &str) -> Option<NodeName> {
    let [name] = segments(key, "alive/")?;
    canonical(name)
}

/// Prefix of the blocks of a network.
pub fn blocks_prefix(network: &NetworkId) -> String {
    format!("blocks/{network}/")
}

/// Prefix of the blocks of a group.
pub fn blocks_of_group(network: &NetworkId, group: Group) -> String {
    format!("blocks/{network}/{group}/")
}

/// The owner of a block.
pub fn block(network: &NetworkId, block: &Block) -> String {
    format!("blocks/{network}/{}/{block}", Group::of(block))
}

/// The network and the block that `key` is about.
pub fn block_of(key: &str) -> Option<(NetworkId, Block)> {
    let [network, group, block] = segments(key, "blocks/")?;
    Some((canonical(network)?, block_in(group, block)?))
}

/// Prefix of the endpoints of a network.
pub fn endpoints_prefix(network: &NetworkId) -> String {
    format!("endpoints/{network}/")
}

/// Prefix of the endpoints in the blocks of a group.
pub fn endpoints_of_group(network: &NetworkId, group: Group) -> String {
    format!("endpoints/{network}/{group}/")
}

/// Prefix of the endpoints in a block.
pub fn endpoints_of_block(network: &NetworkId, block: &Block) -> String {
    format!("endpoints/{network}/{}/{block}/", Group::of(block))
}

/// The node of an address that is an exception to its block. `block` is the block that holds the
/// address.
pub fn endpoint(network: &NetworkId, block: &Block, address: IpAddr) -> String {
    format!("endpoints/{network}/{}/{block}/{address}", Group::of(block))
}

/// The network, the block and the address that `key` is about.
pub fn endpoint_of(key: &str) -> Option<(NetworkId, Block, IpAddr)> {
    let [network, group, block, address] = segments(key, "endpoints/")?;
    Some((canonical(network)?, block_in(group, block)?, canonical(address)?))
}

/// Prefix of the stable identities of a network.
pub fn identities_prefix(network: &NetworkId) -> String {
    format!("identities/{network}/")
}

/// The address of a stable identity, found by the identity.
pub fn identity(network: &NetworkId, id: StickyId) -> String {
    format!("identities/{network}/{id}")
}

/// Prefix of the sticky addresses of a network.
pub fn sticky_prefix(network: &NetworkId) -> String {
    format!("sticky/{network}/")
}

/// Prefix of the sticky addresses in a block.
pub fn sticky_of_block(network: &NetworkId, block: &Block) -> String {
    format!("sticky/{network}/{block}/")
}

/// The address of a stable identity. `block` is the block that holds the address.
pub fn sticky(network: &NetworkId, block: &Block, id: StickyId) -> String {
    format!("sticky/{network}/{block}/{id}")
}

/// The network, the block and the identity that `key` is about.
pub fn sticky_of(key: &str) -> Option<(NetworkId, Block, StickyId)> {
    let [network, block, id] = segments(key, "sticky/")?;
    Some((canonical(network)?, canonical(block)?, canonical(id)?))
}

/// Prefix of all requests to borrow an address.
pub fn requests_prefix() -> &'static str {
    "requests/"
}

/// Prefix of the requests to a lender.
pub fn requests_to(lender: &NodeName) -> String {
    format!("requests/{lender}/")
}

/// Prefix of the requests to a lender for addresses of a network.
pub fn requests_of(lender: &NodeName, network: &NetworkId) -> String {
    format!("requests/{lender}/{network}/")
}

/// A request to borrow an address, and the answer.
pub fn request(lender: &NodeName, network: &NetworkId, loan: LoanId) -> String {
    format!("requests/{lender}/{network}/{loan}")
}

/// The lender, the network and the loan that `key` is about.
pub fn request_of(key: &str) -> Option<(NodeName, NetworkId, LoanId)> {
    let [lender, network, loan] = segments(key, "requests/")?;
    Some((canonical(lender)?, canonical(network)?, canonical(loan)?))
}

/// A request to hand a block over. It lies among the requests for loans, which the owner's agent
/// watches, and its last segment is none that a loan can have.
pub fn move_request(owner: &NodeName, network: &NetworkId, block: &Block) -> String {
    format!("requests/{owner}/{network}/{block}")
}

/// The owner, the network and the block that `key` is about.
pub fn move_request_of(key: &str) -> Option<(NodeName, NetworkId, Block)> {
    let [owner, network, block] = segments(key, "requests/")?;
    Some((canonical(owner)?, canonical(network)?, canonical(block)?))
}

/// Prefix of the revision keys of all shards.
pub fn revisions_prefix() -> &'static str {
    "revisions/"
}

/// Prefix of the revision keys of a shard.
pub fn revisions_of_shard(shard: Shard) -> String {
    format!("revisions/{shard}/")
}

/// The revision key of a group.
pub fn revision(network: &NetworkName, group: Group) -> String {
    format!("revisions/{}/{network}/{group}", Shard::of(network, group))
}

/// The network and the group that `key` is the revision key of.
pub fn revision_of(key: &str) -> Option<(NetworkName, Group)> {
    let [shard, network, group] = segments(key, "revisions/")?;
    let (network, group) = (canonical(network)?, canonical(group)?);
    (shard == Shard::of(&network, group).to_string()).then_some((network, group))
}

/// Prefix of what all nodes report of their use.
pub fn usage_prefix() -> &'static str {
    "usage/"
}

/// Use of a node's blocks, as the node reports it.
pub fn usage(node: &NodeName) -> String {
    format!("usage/{node}")
}

/// The node that `key` is the report of.
pub fn usage_of(key: &str) -> Option<NodeName> {
    let [name] = segments(key, "usage/")?;
    canonical(name)
}

/// The segments of `key` after `prefix`, if there are `N`.
fn segments<'a, const N: usize>(key: &'a str, prefix: &str) -> Option<[&'a str; N]> {
    let segments: Vec<&str> = key.strip_prefix(prefix)?.split('/').collect();
    segments.try_into().ok()
}

/// The value of a segment that is written as weft writes it.
fn canonical<T: FromStr + Display>(segment: &str) -> Option<T> {
    segment.parse().ok().filter(|value: &T| value.to_string() == segment)
}

/// The block of a segment, if it belongs to the group of another segment.
fn block_in(group: &str, block: &str) -> Option<Block> {
    let (group, block): (Group, Block) = (canonical(group)?, canonical(block)?);
    (Group::of(&block) == group).then_some(block)
}

#[cfg(test)]
mod tests;
