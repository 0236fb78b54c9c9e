//! MAC addresses, and the rule that makes them a function of the address.
//!
//! A container's MAC follows from its address, so a node that knows the owner of a block knows the
//! MAC of every container that will ever run in it, before it runs. `02:42:` followed by the four
//! bytes of the IPv4 address is the form that Docker's overlay made familiar. A container with no
//! IPv4 address takes `06:<pool>:` and the low 32 bits of its host number, which is just as unique
//! within a segment since pools hold at most 2³² host numbers.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::hash::fnv1a;
use crate::numbers::{HostNumber, PoolIndex};

/// An Ethernet (EUI-48) address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The address with these bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The MAC of the container that holds `address`.
    pub fn for_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The MAC of a container without an IPv4 address.
    pub fn for_ipv6_only(pool: PoolIndex, host: HostNumber) -> Self {
        let [_, _, _, _, a, b, c, d] = host.get().to_be_bytes();
        Self([0x06, pool.get(), a, b, c, d])
    }

    /// The pool and host number that [`MacAddr::for_ipv6_only`] gives this MAC for, if it does.
    pub(crate) fn ipv6_only(self) -> Option<(PoolIndex, HostNumber)> {
        let [0x06, pool, a, b, c, d] = self.0 else { return None };
        let host = HostNumber::new(u64::from(u32::from_be_bytes([a, b, c, d])));
        Some((PoolIndex::new(pool.into()).ok()?, host))
    }

    /// A unicast, locally administered MAC derived from `seed`: the same seed gives the same MAC
    /// on every machine and after every restart.
    pub fn from_seed(seed: &str) -> Self {
        let [_, _, a, b, c, d, e, f] = fnv1a(seed.as_bytes()).to_be_bytes();
        // IEEE 802: bit 1 of the first byte says "locally administered", bit 0 "group".
        // Bit 2 is set and the family prefixes above are left to addresses: no clash is possible.
        Self([(a & 0xf0) | 0x0a, b, c, d, e, f])
    }

    /// The six bytes, most significant first.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Returns whether an interface may carry it: neither a group address nor all zero.
    pub fn is_usable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let refuse = || {
            ModelError::key("mac", value, "expected six hexadecimal bytes, as in 02:42:0a:09:00:05")
        };
        let mut bytes = [0; 6];
        let mut parts = value.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ModelError;
    fn try_from(value: String) -> Result<Self, ModelError> {
        value.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_from_the_ipv4_address() {
        let mac = MacAddr::for_ipv4(Ipv4Addr::new(10, 9, 1, 255));
        assert_eq!(mac.to_string(), "02:42:0a:09:01:ff");
        assert!(mac.is_usable());
    }

    #[test]
    fn ipv6_only_macs_differ_between_pools_and_hosts() {
        let mac = |pool, host| {
            MacAddr::for_ipv6_only(PoolIndex::new(pool).unwrap(), HostNumber::new(host))
        };
        assert_eq!(mac(1, 0x1_0203).to_string(), "06:01:00:01:02:03");
        assert_ne!(mac(0, 5), mac(1, 5));
    }

    #[test]
    fn seeded_macs_are_stable_local_unicast_and_apart_from_derived_ones() {
        let mac = MacAddr::from_seed("node-a/ovnet1");
        assert_eq!(mac, MacAddr::from_seed("node-a/ovnet1"));
        assert_ne!(mac, MacAddr::from_seed("node-b/ovnet1"));
        assert_eq!(mac.bytes()[0] & 0x0f, 0x0a);
        assert!(mac.is_usable());
    }

    #[test]
    fn parses_what_runtimes_send_and_refuses_the_rest() {
        let mac: MacAddr = "02:42:0A:09:00:05".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:0a:09:00:05");
        assert_eq!("02-42-0a-09-00-05".parse::<MacAddr>().unwrap(), mac);
        for bad in [
            "",
            "02:42:0a:09:00",
            "02:42:0a:09:00:05:06",
            "2:42:0a:09:00:05",
            "zz:42:0a:09:00:05",
            "+2:42:0a:09:00:05",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        assert!(!"01:00:5e:00:00:01".parse::<MacAddr>().unwrap().is_usable());
        assert!(!"00:00:00:00:00:00".parse::<MacAddr>().unwrap().is_usable());
    }
}
