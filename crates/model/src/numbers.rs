//! Numbers that pools and blocks are counted in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// The place of a pool in its network, in the order of the network's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolIndex(u8);

impl PoolIndex {
    /// Takes an index; a network has at most 256 pools.
    pub fn new(index: usize) -> Result<Self, ModelError> {
        u8::try_from(index)
            .map(Self)
            .map_err(|_| ModelError::key("ranges", index, "a network has at most 256 pools"))
    }

    /// The index.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PoolIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an address in its pool, counted from the subnet's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostNumber(u64);

impl HostNumber {
    /// The host number `value`.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HostNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a block as a power of two: 6 is 64 host numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockBits(pub(crate) u8);

impl BlockBits {
    /// The largest block: 65,536 host numbers, about what one host can ever run.
    pub(crate) const MAX: u8 = 16;

    /// The block size of a pool with `host_bits`: as asked for, or else a sixteenth of the pool,
    /// but no more than 64 and no less than 1 host number.
    pub fn for_pool(host_bits: u8, asked: Option<u8>) -> Result<Self, ModelError> {
        match asked {
            None => Ok(Self(host_bits.saturating_sub(4).min(6))),
            Some(bits) if bits > host_bits => {
                let reason = format!("a block cannot be larger than its pool (2^{host_bits})");
                Err(ModelError::key("blockBits", bits, reason))
            }
            Some(bits) if bits > Self::MAX => {
                Err(ModelError::key("blockBits", bits, "a block holds at most 2^16 addresses"))
            }
            Some(bits) => Ok(Self(bits)),
        }
    }

    /// The power of two.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Count of host numbers in a block.
    pub fn size(self) -> u64 {
        1 << self.0
    }
}
