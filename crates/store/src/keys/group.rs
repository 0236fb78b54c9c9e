//! Groups of blocks, and the shards that their revision keys are spread over.

use std::fmt;
use std::str::FromStr;

use weft_model::hash::fnv1a;
use weft_model::{Block, ModelError, NetworkName, PoolIndex};

/// Blocks of a group, as a power of two: 64.
const GROUP_BITS: u8 = 6;

/// Shards of the revision keys. A watch of one shard moves a sixteenth of all revisions.
pub const SHARDS: u8 = 16;

/// 64 consecutive blocks of a pool: the unit that nodes read again after a change. Shown as
/// `<pool>-<number>`; group 0 holds blocks 0 to 63 of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    pool: PoolIndex,
    number: u64,
}

impl Group {
    /// The group of `block`.
    pub fn of(block: &Block) -> Self {
        let number = block.first().get() >> (block.bits().get() + GROUP_BITS);
        Self { pool: block.pool(), number }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pool, self.number)
    }
}

impl FromStr for Group {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let reason = "expected <pool>-<number>";
        let refuse = || ModelError::Name { kind: "group", value: value.to_owned(), reason };
        let (pool, number) = value.split_once('-').ok_or_else(refuse)?;
        let pool = pool.parse().map_err(|_| refuse()).and_then(PoolIndex::new)?;
        Ok(Self { pool, number: number.parse().map_err(|_| refuse())? })
    }
}

/// A part of the revision keys, shown as one hex digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// The shard of a group's revision key.
    ///
    /// All nodes must agree on it, so it is part of the protocol: [`fnv1a`] of the bytes of
    /// `<network>/<group>`, folded with `hash ^ (hash >> 32)`, of which the lowest four bits count.
    pub fn of(network: &NetworkName, group: Group) -> Self {
        let hash = fnv1a(format!("{network}/{group}").as_bytes());
        let folded = hash ^ (hash >> 32);
        Self(folded.to_le_bytes()[0] % SHARDS)
    }

    /// All shards.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The number, below [`SHARDS`].
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for Shard {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let reason = "expected one hex digit";
        let refuse = || ModelError::Name { kind: "shard", value: value.to_owned(), reason };
        Self::all().find(|shard| shard.to_string() == value).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_holds_64_blocks_of_its_pool() {
        let group = |block: &str| Group::of(&block.parse().unwrap()).to_string();
        for (block, expected) in [
            ("0-0-6", "0-0"),
            ("0-4032-6", "0-0"),
            ("0-4096-6", "0-1"),
            ("3-63-0", "3-0"),
            ("3-64-0", "3-1"),
            ("0-4294901760-16", "0-1023"),
        ] {
            assert_eq!(group(block), expected, "{block}");
        }
    }

    #[test]
    fn shards_of_known_groups_never_change() {
        // A node of another version must find the same shard.
        let shard = |network: &str, group: &str| {
            Shard::of(&NetworkName::new(network).unwrap(), group.parse().unwrap()).to_string()
        };
        assert_eq!(
            [
                shard("red", "0-0"),
                shard("red", "0-1"),
                shard("blue", "0-0"),
                shard("a.b_c-1", "255-1023")
            ],
            ["2", "d", "a", "5"],
        );
    }

    #[test]
    fn groups_spread_evenly_over_shards() {
        let mut counts = [0; SHARDS as usize];
        for network in 0..100 {
            let network = NetworkName::new(format!("net{network}")).unwrap();
            for number in 0..16 {
                let group = format!("0-{number}").parse().unwrap();
                counts[usize::from(Shard::of(&network, group).number())] += 1;
            }
        }
        // 100 are expected in each, and the standard deviation is 10.
        assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    #[test]
    fn parses_only_what_it_shows() {
        for bad in ["", "0", "0-", "-0", "0-x", "256-0", "0-1-2"] {
            assert!(bad.parse::<Group>().is_err(), "{bad}");
        }
        for bad in ["", "A", "g", "00", "10"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
