//! VXLAN network identifiers (RFC 7348 §5: 24 bits).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Incarnation, ModelError};

/// A VXLAN network identifier, 1 to 16,777,215.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The first number that is assigned automatically. Docker's overlay counts up from 256 and
    /// from 4096, flannel uses 1; two VXLAN devices with one VNI and port cannot live on a host.
    pub const FIRST_AUTOMATIC: Self = Self(10_000);

    /// The largest VNI.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// Takes a VNI in range. 0 is refused: some hardware treats it as "no VNI".
    pub fn new(value: u32) -> Result<Self, ModelError> {
        if value == 0 || value > Self::MAX.0 {
            return Err(ModelError::key("vni", value, "a VNI is a number from 1 to 16777215"));
        }
        Ok(Self(value))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The VNI at which the search for a free one begins for a network of this incarnation.
    pub fn automatic(incarnation: Incarnation) -> Self {
        let count = Self::MAX.0 - Self::FIRST_AUTOMATIC.0 + 1;
        Self(Self::FIRST_AUTOMATIC.0 + incarnation.number() % count)
    }

    /// The next VNI, unless this is the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::MAX).then(|| Self(self.0 + 1))
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Vni {
    type Error = ModelError;
    fn try_from(value: u32) -> Result<Self, ModelError> {
        Self::new(value)
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_24_bits_fit() {
        assert!(Vni::new(0).is_err());
        assert!(Vni::new(1).is_ok());
        assert!(Vni::new(16_777_215).is_ok());
        assert!(Vni::new(16_777_216).is_err());
        assert_eq!(Vni::MAX.next(), None);
    }
}
