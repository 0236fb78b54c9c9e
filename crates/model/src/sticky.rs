//! Sticky addresses: an attachment that comes with a stable identity gets the address back that the
//! identity had before, on whatever node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use ring::digest::{SHA256, digest};

use crate::{HostNumber, ModelError, PoolIndex, hex};

/// A stable identity, as it stands in keys and file names: a hash, for identities are free text.
///
/// Tenants choose identities, so the hash is a cryptographic one: nobody finds a text with the id
/// of another's. Where an id leads to a record, the record's [`Sticky`] is compared
/// ([`Sticky::is_same`]), and a record of another identity is another holder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StickyId(u128);

impl StickyId {
    /// The identity that a text stands for: the first 128 bits of its SHA-256 (FIPS 180-4).
    pub fn of(text: &str) -> Self {
        let hash = digest(&SHA256, text.as_bytes());
        Self(hash.as_ref().iter().take(16).fold(0, |id, byte| (id << 8) | u128::from(*byte)))
    }
}

impl fmt::Display for StickyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StickyId {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        hex::parse("id of an identity", hex::Digits::Of128Bits, value).map(Self)
    }
}

impl Serialize for StickyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StickyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An identity that keeps its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sticky {
    /// The identity as the caller gave it.
    pub identity: String,
    /// For how many seconds the address is kept after the attachment has gone.
    pub keep: u64,
}

impl Sticky {
    /// The identity's short form.
    pub fn id(&self) -> StickyId {
        StickyId::of(&self.identity)
    }

    /// Returns whether both are of one identity, however long each keeps its address.
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// The record behind `sticky/<network>/<id>`: which address an identity has, or had last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StickyRecord {
    /// The identity, and for how long the address is kept.
    #[serde(flatten)]
    pub sticky: Sticky,
    /// The pool of the address.
    pub pool: PoolIndex,
    /// Its host number.
    pub host: HostNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_first_half_of_sha256() {
        // `printf db-0 | sha256sum`
        assert_eq!(StickyId::of("db-0").to_string(), "5d2e50e8c9fc80ad3ab4bc23cce71bcf");
        let id = StickyId::of("prod/db-0@eth0");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    /// Both texts have the same 64 bits of FNV-1a.
    #[test]
    fn texts_that_collide_in_fnv_have_ids_of_their_own() {
        let texts = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];
        assert_eq!(
            crate::hash::fnv1a(texts[0].as_bytes()),
            crate::hash::fnv1a(texts[1].as_bytes())
        );
        assert_ne!(StickyId::of(texts[0]), StickyId::of(texts[1]));
    }

    #[test]
    fn an_id_that_is_none_is_called_an_identitys() {
        for bad in ["", "x", "0123456789abcdef", "+123456789abcdef0123456789abcdef"] {
            let error = bad.parse::<StickyId>().unwrap_err().to_string();
            assert!(error.contains("identity") && error.contains("32 hex digits"), "{error}");
        }
    }
}
