//! Networks across time: a name, and which of the networks that had it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ModelError, NetworkName};

/// A random number that a network is made with. One that is removed and made again under its name
/// is another network: nothing of the first may count as the second's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Incarnation(u32);

impl Incarnation {
    /// The incarnation of a random number.
    pub const fn of(random: u64) -> Self {
        Self((random >> 32) as u32)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Incarnation {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let refuse = || ModelError::Name {
            kind: "incarnation",
            value: value.into(),
            reason: "expected 8 hex digits",
        };
        if value.len() != 8 || value.starts_with(['+', '-']) {
            return Err(refuse());
        }
        u32::from_str_radix(value, 16).map(Self).map_err(|_| refuse())
    }
}

impl Serialize for Incarnation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One network among all that ever had its name. Keys of the store that belong to a network carry
/// it, so that what is left of an earlier network never counts as a later one's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkId {
    /// The name.
    pub name: NetworkName,
    /// The incarnation.
    pub incarnation: Incarnation,
}

/// The form of the store's keys: `<name>@<incarnation>`. No name has an `@`.
impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.incarnation)
    }
}

impl FromStr for NetworkId {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let (name, incarnation) = value.split_once('@').ok_or_else(|| ModelError::Name {
            kind: "network",
            value: value.into(),
            reason: "expected <name>@<incarnation>",
        })?;
        Ok(Self { name: NetworkName::new(name)?, incarnation: incarnation.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let name = NetworkName::new("red").unwrap();
        let id = NetworkId { name, incarnation: Incarnation::of(0x0123_4567_89ab_cdef) };
        assert_eq!(id.to_string(), "red@01234567");
        assert_eq!(id.to_string().parse::<NetworkId>().unwrap(), id);
        for wrong in ["red", "red@", "red@+1234567", "red@012345678", "@01234567", "red@x1234567"] {
            assert!(wrong.parse::<NetworkId>().is_err(), "{wrong}");
        }
    }
}
