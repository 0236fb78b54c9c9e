//! Subnets, parsed strictly.
//!
//! `ipnetwork` reads a bare address as a /32, and takes netmasks and set host bits. In a network's
//! definition each of these is a typing error that would surface much later, so [`Subnet`] refuses
//! them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// An IPv4 or IPv6 subnet in prefix notation, host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet(IpNetwork);

impl Subnet {
    /// The subnet of `prefix_len` bits that begins at `network`.
    pub fn new(network: IpAddr, prefix_len: u8) -> Result<Self, ModelError> {
        let shown = format!("{network}/{prefix_len}");
        let net = IpNetwork::new(network, prefix_len)
            .map_err(|_| ModelError::key("subnet", &shown, "the prefix length is out of range"))?;
        if net.network() != network {
            let reason = format!(
                "host bits are set; the subnet that holds this address is {}/{prefix_len}",
                net.network()
            );
            return Err(ModelError::key("subnet", shown, reason));
        }
        Ok(Self(net))
    }

    /// The first address, which names the subnet.
    pub fn network(&self) -> IpAddr {
        self.0.network()
    }

    /// The prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix()
    }

    /// Count of bits that number the hosts.
    pub fn host_bits(&self) -> u8 {
        match self.0 {
            IpNetwork::V4(net) => 32 - net.prefix(),
            IpNetwork::V6(net) => 128 - net.prefix(),
        }
    }

    /// Returns whether this is an IPv4 subnet.
    pub fn is_ipv4(&self) -> bool {
        self.0.is_ipv4()
    }

    /// Returns whether `address` lies in the subnet.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Returns whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Two prefixes overlap only if one contains the other.
        self.contains(other.network()) || other.contains(self.network())
    }

    /// The address with host number `host`, unless the subnet is too small for it.
    pub fn nth(&self, host: u64) -> Option<IpAddr> {
        if self.host_bits() < 64 && host >> self.host_bits() != 0 {
            return None;
        }
        match self.0.network() {
            IpAddr::V4(net) => {
                let host = u32::try_from(host).ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(u32::from(net) | host)))
            }
            IpAddr::V6(net) => Some(IpAddr::V6(Ipv6Addr::from(u128::from(net) | u128::from(host)))),
        }
    }

    /// The host number of `address`, unless it lies outside or is too large for 64 bits.
    pub fn host_number(&self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        match (self.0.network(), address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                Some(u64::from(u32::from(address) - u32::from(net)))
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                u64::try_from(u128::from(address) - u128::from(net)).ok()
            }
            _ => None,
        }
    }

    /// `address` together with this subnet's prefix length, as an interface carries it.
    pub fn with_host(&self, address: IpAddr) -> Option<IpNetwork> {
        self.contains(address).then(|| IpNetwork::new(address, self.prefix_len()).ok()).flatten()
    }

    /// The same subnet as the `ipnetwork` type.
    pub fn as_ip_network(&self) -> IpNetwork {
        self.0
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = ModelError;

    fn from_str(value: &str) -> Result<Self, ModelError> {
        let refuse = |reason: &str| ModelError::key("subnet", value, reason);
        let (address, prefix) = value
            .split_once('/')
            .ok_or_else(|| refuse("the prefix length is missing, as in 10.9.0.0/16"))?;
        let address: IpAddr = address.parse().map_err(|_| refuse("this is not an IP address"))?;
        let prefix: u8 =
            prefix.parse().map_err(|_| refuse("the prefix length is not a small number"))?;
        Self::new(address, prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = ModelError;
    fn try_from(value: String) -> Result<Self, ModelError> {
        value.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn refuses_what_is_probably_a_typing_error() {
        let reason = |text: &str| text.parse::<Subnet>().unwrap_err().to_string();
        assert!(reason("10.9.0.0").contains("prefix length is missing"));
        assert!(reason("10.9.0.5/24").contains("10.9.0.0/24"));
        for bad in ["", "/", "10.9.0.0/33", "10.9.0.0/255.255.0.0", "010.9.0.0/16", "fd00::/129"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_hosts_in_both_families() {
        let v4 = subnet("10.9.0.0/16");
        assert_eq!(v4.nth(256), Some("10.9.1.0".parse().unwrap()));
        assert_eq!(v4.nth(65_536), None);
        assert_eq!(v4.host_number("10.9.1.0".parse().unwrap()), Some(256));
        assert_eq!(v4.host_number("10.8.1.0".parse().unwrap()), None);
        let v6 = subnet("fd00:9::/64");
        assert_eq!(v6.nth(256), Some("fd00:9::100".parse().unwrap()));
        assert_eq!(v6.host_number("fd00:9::100".parse().unwrap()), Some(256));
        assert_eq!(
            subnet("0.0.0.0/0").nth(u64::from(u32::MAX)),
            Some("255.255.255.255".parse().unwrap())
        );
        assert_eq!(subnet("::/0").host_number("ffff::".parse().unwrap()), None);
    }

    #[test]
    fn overlap_is_symmetric() {
        let (wide, narrow, other) =
            (subnet("10.0.0.0/8"), subnet("10.9.0.0/16"), subnet("11.0.0.0/8"));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!wide.overlaps(&other) && !other.overlaps(&wide));
        assert!(!wide.overlaps(&subnet("fd00::/8")));
    }
}
