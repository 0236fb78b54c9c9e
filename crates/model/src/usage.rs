//! Counts of the addresses in use of a node's blocks, as the node reports them to the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Block, NetworkName};

/// Use of a node's blocks, by network.
pub type Usage = BTreeMap<NetworkName, BTreeMap<Block, BlockCounts>>;

/// The record behind `usage/<node>`. It is for people to read and may be some seconds behind; no
/// decision rests on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRecord {
    /// The time of the count by the node's clock, in seconds since 1970.
    pub counted: u64,
    /// The counts.
    #[serde(default)]
    pub networks: Usage,
}

/// Number of addresses of a block in each state. Together they are the addresses that can be handed
/// out. Zeros are left out of the record, which has one of these for each block of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockCounts {
    /// Held by containers of the owner, by the owner itself, or reserved for containers to come.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held: u32,
    /// Kept for identities whose containers are gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept: u32,
    /// In use on other nodes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lent: u32,
    /// To be had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub free: u32,
}

impl BlockCounts {
    /// The counts of a block of which `taken` addresses are not free, among them those that are
    /// `kept` and `lent`. These are counted one after the other while containers come and go, so
    /// they may not add up; then the number of taken ones counts.
    pub fn new(free: u32, taken: u32, kept: u32, lent: u32) -> Self {
        let lent = lent.min(taken);
        let kept = kept.min(taken - lent);
        Self { held: taken - lent - kept, kept, lent, free }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_legible_and_leaves_zeros_out() {
        let counts = BlockCounts::new(60, 4, 1, 0);
        let blocks = BTreeMap::from([("0-64-6".parse().unwrap(), counts)]);
        let networks = BTreeMap::from([(NetworkName::new("red").unwrap(), blocks)]);
        let record = UsageRecord { counted: 7, networks };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"counted":7,"networks":{"red":{"0-64-6":{"held":3,"kept":1,"free":60}}}}"#
        );
        assert_eq!(serde_json::from_str::<UsageRecord>(&text).unwrap(), record);
        let newer = r#"{"counted":7,"networks":{"red":{"0-64-6":{"held":3,"more":1}}},"more":{}}"#;
        let held = BlockCounts { held: 3, ..BlockCounts::default() };
        let read: UsageRecord = serde_json::from_str(newer).unwrap();
        assert_eq!(read.networks.values().next().unwrap().values().next(), Some(&held));
    }

    #[test]
    fn counts_add_up_to_the_addresses_that_are_taken() {
        for (taken, kept, lent, expected) in
            [(5, 1, 2, [2, 1, 2]), (2, 1, 2, [0, 0, 2]), (1, 1, 2, [0, 0, 1]), (0, 3, 3, [0, 0, 0])]
        {
            let counts = BlockCounts::new(9, taken, kept, lent);
            assert_eq!([counts.held, counts.kept, counts.lent], expected);
            assert_eq!(counts.free, 9);
        }
    }
}
