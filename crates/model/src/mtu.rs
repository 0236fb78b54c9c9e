//! Overhead of encapsulation, in bytes of each packet.

use std::net::IpAddr;

/// The smallest MTU that an overlay works with: IPv6 needs 1280 bytes (RFC 8200 §5), and IPv4
/// without IPv6 is given the same floor to keep one rule.
pub const MINIMUM: u32 = 1280;

/// The largest MTU that the kernel's bridge and VXLAN devices take (`ETH_MAX_MTU`).
pub const MAXIMUM: u32 = 65_535;

/// One layer of encapsulation between the overlay's packet and the underlay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overhead {
    /// VXLAN between IPv4 VTEPs: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 (RFC 7348 §5).
    VxlanIpv4,
    /// VXLAN between IPv6 VTEPs: inner Ethernet 14, VXLAN 8, UDP 8, IPv6 40.
    VxlanIpv6,
}

impl Overhead {
    /// VXLAN to and from `vtep`.
    pub fn vxlan(vtep: IpAddr) -> Self {
        if vtep.is_ipv4() { Self::VxlanIpv4 } else { Self::VxlanIpv6 }
    }

    /// The bytes it takes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::VxlanIpv4 => 50,
            Self::VxlanIpv6 => 70,
        }
    }
}

/// The largest packet that crosses an underlay of MTU `underlay` whole, inside `layers`.
pub fn overlay(underlay: u32, layers: &[Overhead]) -> u32 {
    layers.iter().fold(underlay, |mtu, layer| mtu.saturating_sub(layer.bytes())).min(MAXIMUM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vxlan_takes_50_or_70_bytes() {
        assert_eq!(overlay(1500, &[Overhead::VxlanIpv4]), 1450);
        assert_eq!(overlay(1500, &[Overhead::VxlanIpv6]), 1430);
        assert_eq!(overlay(9000, &[Overhead::vxlan("198.18.0.1".parse().unwrap())]), 8950);
        assert_eq!(overlay(40, &[Overhead::VxlanIpv4]), 0);
        assert_eq!(overlay(65_600, &[Overhead::VxlanIpv4]), MAXIMUM, "the kernel takes no more");
    }
}
