//! The record that a node keeps of itself in the cluster store.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The UDP port that IANA assigned to VXLAN (RFC 7348 §8).
pub const VXLAN_PORT: u16 = 4789;

/// The record behind `nodes/<node>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// The machine that goes by this name: `/etc/machine-id`, or what stands in for it. A second
    /// machine that comes with the same name is refused.
    pub machine_id: String,
    /// Endpoints for VXLAN of the node, one address for each underlay family. Empty while
    /// only the IPAM has run on the node.
    #[serde(default)]
    pub vteps: Vec<IpAddr>,
    /// The UDP port that it receives VXLAN on.
    #[serde(default = "default_port")]
    pub port: u16,
    /// True if the node is being removed from the cluster. Its agent clears this by coming back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// True if the node is to get no new addresses: it claims no blocks and borrows nothing. Set
    /// and cleared by a person; the node itself keeps it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// The release of weft that wrote the record.
    #[serde(default)]
    pub version: String,
}

fn default_port() -> u16 {
    VXLAN_PORT
}

impl NodeRecord {
    /// The VTEP of the family that `local` has: a VXLAN device speaks one family only.
    pub fn vtep_for(&self, local: IpAddr) -> Option<IpAddr> {
        self.vteps.iter().copied().find(|vtep| vtep.is_ipv4() == local.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_records_without_port_and_vteps_are_read() {
        let node: NodeRecord = serde_json::from_str(r#"{"machineId":"m"}"#).unwrap();
        assert_eq!((node.port, node.vteps.len()), (4789, 0));
    }

    #[test]
    fn a_peer_is_reached_in_the_family_of_the_own_vtep() {
        let node = NodeRecord {
            machine_id: "m".into(),
            vteps: vec!["fd00::1".parse().unwrap(), "198.18.0.1".parse().unwrap()],
            port: VXLAN_PORT,
            removing: false,
            drained: false,
            version: String::new(),
        };
        assert_eq!(node.vtep_for("198.18.0.2".parse().unwrap()), Some(node.vteps[1]));
        assert_eq!(node.vtep_for("fd00::2".parse().unwrap()), Some(node.vteps[0]));
    }
}
