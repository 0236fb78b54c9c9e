//! Blocks: aligned power-of-two ranges of host numbers, each owned by one node.
//!
//! Blocks of a pool are all of one size and aligned to it, so two different blocks never overlap.
//! That makes "create this key if it is absent" in the cluster store the whole of ownership: no
//! node has to read what others hold to be sure that its own claim is safe.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ModelError;
pub use crate::numbers::BlockBits;
use crate::numbers::{HostNumber, PoolIndex};
use crate::pool::Pool;

/// An aligned range of a pool's host numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    pool: PoolIndex,
    first: HostNumber,
    bits: BlockBits,
}

impl Block {
    /// The block of `pool` that holds `host`.
    pub fn containing(pool: PoolIndex, host: HostNumber, bits: BlockBits) -> Self {
        Self { pool, first: HostNumber::new(host.get() & !(bits.size() - 1)), bits }
    }

    /// The pool that the block is cut from.
    pub fn pool(&self) -> PoolIndex {
        self.pool
    }

    /// The first host number.
    pub fn first(&self) -> HostNumber {
        self.first
    }

    /// The last host number.
    pub fn last(&self) -> HostNumber {
        HostNumber::new(self.first.get() + (self.bits.size() - 1))
    }

    /// The block's size.
    pub fn bits(&self) -> BlockBits {
        self.bits
    }

    /// Returns whether the block holds `host` of its pool.
    pub fn contains(&self, host: HostNumber) -> bool {
        (self.first..=self.last()).contains(&host)
    }

    /// All host numbers of the block, those that are never handed out included.
    pub fn hosts(&self) -> impl Iterator<Item = HostNumber> + use<> {
        (self.first.get()..=self.last().get()).map(HostNumber::new)
    }

    /// Returns whether the block is one that `pool` is cut into: of the pool's size and inside it.
    pub fn belongs_to(&self, pool: &Pool) -> bool {
        self.bits == pool.block_bits() && self.last().get() >> pool.host_bits() == 0
    }

    /// Returns whether any host number of the block may be handed out.
    pub fn is_useful(&self, pool: &Pool) -> bool {
        self.first <= pool.last()
            && self.last() >= pool.first()
            && self.hosts().any(|host| pool.is_assignable(host))
    }

    /// The blocks that `pool` is cut into and that overlap its range, in ascending order. Some may
    /// hold nothing to hand out: see [`Block::is_useful`].
    pub fn all_of(index: PoolIndex, pool: &Pool) -> impl Iterator<Item = Self> + use<> {
        let bits = pool.block_bits();
        (pool.first().get() >> bits.get()..=pool.last().get() >> bits.get()).map(move |n| Self {
            pool: index,
            first: HostNumber::new(n << bits.get()),
            bits,
        })
    }
}

/// The form of the store's keys and of file names: `<pool>-<first host number>-<bits>`.
impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.pool, self.first, self.bits.get())
    }
}

impl FromStr for Block {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let refuse = |reason| ModelError::Name { kind: "block", value: value.to_owned(), reason };
        let form = || refuse("expected <pool>-<first host number>-<bits>");
        let mut parts = value.split('-').map(str::parse::<u64>);
        let mut next = || parts.next().and_then(Result::ok).ok_or_else(form);
        let (pool, first, bits) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(form());
        }
        let pool = usize::try_from(pool).map_err(|_| form()).and_then(PoolIndex::new)?;
        let bits =
            u8::try_from(bits).ok().filter(|bits| *bits <= BlockBits::MAX).ok_or_else(form)?;
        let bits = BlockBits(bits);
        if first & (bits.size() - 1) != 0 || first > u64::from(u32::MAX) {
            return Err(refuse("the first host number is not a multiple of the size"));
        }
        Ok(Self { pool, first: HostNumber::new(first), bits })
    }
}

impl Serialize for Block {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The record behind a block's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockRecord {
    /// The owner.
    pub node: crate::NodeName,
    /// Counts the owner's decisions about the block. Each is a write that must find the record as
    /// it was read, so a decision that comes late, when there has been another, has no effect.
    #[serde(default)]
    pub generation: u64,
}

/// The record behind a request to hand a block over: `requests/<owner>/<network>/<block>`. The
/// owner deletes it in the transaction that makes the block another node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveRecord {
    /// The node that is asked: the owner.
    pub owner: crate::NodeName,
    /// The node that is to own the block.
    pub to: crate::NodeName,
    /// Set by the owner if it does not hand the block over: the reason, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{FamilyRecord, PoolRecord};

    fn pool(subnet: &str) -> Pool {
        let family = FamilyRecord::new(subnet.parse().unwrap());
        let record = if family.subnet.is_ipv4() {
            PoolRecord { ipv4: Some(family), ..PoolRecord::default() }
        } else {
            PoolRecord { ipv6: Some(family), ..PoolRecord::default() }
        };
        Pool::new(record).unwrap()
    }

    const FIRST: usize = 0;

    #[test]
    fn default_size_is_a_sixteenth_of_the_pool_but_64_at_most() {
        let bits = |subnet| pool(subnet).block_bits().get();
        assert_eq!(bits("10.0.0.0/8"), 6);
        assert_eq!(bits("10.9.0.0/16"), 6);
        assert_eq!(bits("10.9.0.0/24"), 4);
        assert_eq!(bits("10.9.0.0/28"), 0);
        assert_eq!(bits("10.9.0.0/30"), 0);
        assert_eq!(bits("fd00::/64"), 6);
        assert_eq!(bits("fd00::/126"), 0);
    }

    #[test]
    fn a_pool_is_cut_into_blocks_without_gap_or_overlap() {
        for subnet in ["10.9.0.0/30", "10.9.0.0/28", "10.9.0.0/24", "10.9.0.0/16", "fd00::/118"] {
            let pool = pool(subnet);
            let mut expected = 0;
            for block in Block::all_of(PoolIndex::new(FIRST).unwrap(), &pool) {
                assert!(block.belongs_to(&pool));
                for host in block.hosts() {
                    assert_eq!(host.get(), expected);
                    let same = Block::containing(block.pool(), host, pool.block_bits());
                    assert_eq!(same, block);
                    expected += 1;
                }
            }
            assert_eq!(expected, 1 << pool.host_bits(), "{subnet}");
        }
    }

    #[test]
    fn the_ends_of_a_pool_of_single_addresses_are_useless() {
        let pool = pool("10.9.0.0/30");
        let useful: Vec<bool> = Block::all_of(PoolIndex::new(FIRST).unwrap(), &pool)
            .map(|block| block.is_useful(&pool))
            .collect();
        assert_eq!(useful, [false, true, true, false]);
    }

    #[test]
    fn keys_round_trip_and_reject_what_no_pool_has() {
        let block: Block = "0-64-6".parse().unwrap();
        assert_eq!(block.to_string(), "0-64-6");
        assert_eq!((block.first().get(), block.last().get()), (64, 127));
        for bad in ["", "0-64", "0-65-6", "0-64-6-1", "256-0-6", "0-0-17", "a-b-c", "0--6"] {
            assert!(bad.parse::<Block>().is_err(), "{bad}");
        }
        assert!(!"0-65536-6".parse::<Block>().unwrap().belongs_to(&pool("10.9.0.0/16")));
    }

    #[test]
    fn a_size_that_does_not_fit_is_refused() {
        assert!(
            BlockBits::for_pool(8, Some(9)).unwrap_err().to_string().starts_with("blockBits 9")
        );
        assert!(BlockBits::for_pool(24, Some(17)).is_err());
        assert_eq!(BlockBits::for_pool(8, Some(8)).unwrap().size(), 256);
    }
}
