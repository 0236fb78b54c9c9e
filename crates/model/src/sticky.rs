//! Sticky addresses: an attachment that comes with a stable identity gets the address back that the
//! identity had before, on whatever node.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hash::fnv1a;
use crate::{HostNumber, ModelError, PoolIndex, hex};

/// A stable identity, as it stands in keys and file names: a hash, for identities are free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StickyId(u64);

impl StickyId {
    /// The identity that a text stands for: 64 bits of FNV-1a, mixed.
    pub fn of(text: &str) -> Self {
        let hash = fnv1a(text.as_bytes());
        Self(hash ^ (hash >> 29))
    }
}

impl fmt::Display for StickyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StickyId {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        hex::parse("identity", value).map(Self)
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
