//! The layout of all keys, relative to the store's prefix.
//!
//! Names consist of letters, digits, `_`, `.` and `-`, so each is one segment of a path, unescaped.

use std::net::IpAddr;

use weft_model::{Block, LoanId, NetworkName, NodeName, StickyId, Vni};

/// Under which all network definitions lie.
pub fn networks_prefix() -> &'static str {
    "networks/"
}

/// Counts the networks that were made: who makes one has seen all others.
pub fn catalogue() -> &'static str {
    "catalogue"
}

/// A network's definition.
pub fn network(name: &NetworkName) -> String {
    format!("networks/{name}")
}

/// Which network has a VNI.
pub fn vni(vni: Vni) -> String {
    format!("vnis/{vni}")
}

/// Under which all nodes' records lie.
pub fn nodes_prefix() -> &'static str {
    "nodes/"
}

/// A node's record.
pub fn node(name: &NodeName) -> String {
    format!("nodes/{name}")
}

/// The node that a key is the record of.
pub fn node_of(key: &str) -> Option<NodeName> {
    last_segment(key, "nodes/")
}

/// Under which the blocks of a network lie.
pub fn blocks_prefix(network: &NetworkName) -> String {
    format!("blocks/{network}/")
}

/// Who owns a block.
pub fn block(network: &NetworkName, block: &Block) -> String {
    format!("blocks/{network}/{block}")
}

/// The block that a key is about.
pub fn block_of(key: &str) -> Option<Block> {
    last_segment(key, "blocks/")
}

/// Under which the endpoints of a network lie.
pub fn endpoints_prefix(network: &NetworkName) -> String {
    format!("endpoints/{network}/")
}

/// Where an address lives that is an exception to its block.
pub fn endpoint(network: &NetworkName, address: IpAddr) -> String {
    format!("endpoints/{network}/{address}")
}

/// The address that a key is about.
pub fn endpoint_of(key: &str) -> Option<IpAddr> {
    last_segment(key, "endpoints/")
}

/// Under which the addresses of stable identities lie.
pub fn stickies_prefix(network: &NetworkName) -> String {
    format!("sticky/{network}/")
}

/// The address of a stable identity.
pub fn sticky(network: &NetworkName, id: StickyId) -> String {
    format!("sticky/{network}/{id}")
}

/// Under which the requests to borrow addresses of a network lie.
pub fn requests_prefix(network: &NetworkName) -> String {
    format!("requests/{network}/")
}

/// A request to borrow an address, and the answer to it.
pub fn request(network: &NetworkName, loan: LoanId) -> String {
    format!("requests/{network}/{loan}")
}

/// The loan that a key is about.
pub fn request_of(key: &str) -> Option<LoanId> {
    last_segment(key, "requests/")
}

fn last_segment<T: std::str::FromStr>(key: &str, kind: &str) -> Option<T> {
    key.strip_prefix(kind)?.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_they_are_about() {
        let network = NetworkName::new("red").unwrap();
        let block_: Block = "0-64-6".parse().unwrap();
        assert_eq!(block(&network, &block_), "blocks/red/0-64-6");
        assert_eq!(block_of("blocks/red/0-64-6"), Some(block_));
        assert_eq!(block_of("blocks/red/whatever"), None);
        assert_eq!(node_of("nodes/a"), Some(NodeName::new("a").unwrap()));
        let address: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(endpoint_of(&endpoint(&network, address)), Some(address));
    }
}
