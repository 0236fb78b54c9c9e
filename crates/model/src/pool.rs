//! Pools: the subnets of a network, and the host numbers that index them.
//!
//! A pool is an IPv4 subnet, an IPv6 subnet, or a pair of both. A container gets one *host number*,
//! and that number gives its address in each family the pool has: host 5 of
//! `10.9.0.0/16` + `fd00:9::/64` is `10.9.0.5` and `fd00:9::5`. Everything that is handed out,
//! owned or compared is a host number, so no code above this module knows two families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
pub use crate::numbers::{BlockBits, HostNumber, PoolIndex};
use crate::{ModelError, Subnet};

/// A pool uses at most this many host bits, so that a MAC without an IPv4 address stays unique.
const MAX_HOST_BITS: u8 = 32;

/// One family of a pool, as a network's definition writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyRecord {
    /// The subnet.
    pub subnet: Subnet,
    /// The address that containers send to when they leave the subnet. Absent: the network has no
    /// way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The first address to hand out; absent: the first of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// The last address to hand out; absent: the last of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
}

impl FamilyRecord {
    /// A family that is all of `subnet`, without a gateway.
    pub fn new(subnet: Subnet) -> Self {
        Self { subnet, gateway: None, range_start: None, range_end: None }
    }
}

/// A pool as a network's definition writes it, before it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRecord {
    /// The IPv4 half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyRecord>,
    /// The IPv6 half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyRecord>,
    /// Addresses and subnets never to hand out; one of either family excludes its host number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<IpNetwork>,
    /// Size of the blocks, as a power of two; absent: by the size of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_bits: Option<u8>,
}

/// A checked pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PoolRecord", into = "PoolRecord")]
pub struct Pool {
    record: PoolRecord,
    host_bits: u8,
    block_bits: BlockBits,
    first: HostNumber,
    last: HostNumber,
    /// Host numbers inside `first..=last` that are never handed out, as inclusive ranges.
    withheld: Vec<(u64, u64)>,
}

/// The addresses that one host number gives: one in each family of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The IPv4 address, if the pool has an IPv4 subnet.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address, if the pool has an IPv6 subnet.
    pub v6: Option<Ipv6Addr>,
    /// The MAC that goes with them.
    pub mac: MacAddr,
}

impl Addresses {
    /// The addresses, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl Pool {
    /// Checks a pool's definition.
    pub fn new(record: PoolRecord) -> Result<Self, ModelError> {
        let families: Vec<&FamilyRecord> = record.ipv4.iter().chain(&record.ipv6).collect();
        if let Some(v4) = &record.ipv4
            && !v4.subnet.is_ipv4()
        {
            return Err(ModelError::key("subnet", v4.subnet, "this is not an IPv4 subnet"));
        }
        if let Some(v6) = &record.ipv6
            && v6.subnet.is_ipv4()
        {
            return Err(ModelError::key("subnet", v6.subnet, "this is not an IPv6 subnet"));
        }
        let Some(host_bits) = families.iter().map(|f| f.subnet.host_bits()).min() else {
            return Err(ModelError::key("subnet", "(none)", "a pool needs at least one subnet"));
        };
        let host_bits = host_bits.min(MAX_HOST_BITS);
        for family in &families {
            if family.subnet.host_bits() < 2 {
                return Err(ModelError::key(
                    "subnet",
                    family.subnet,
                    "too small to hold a gateway and a container; use /30 (IPv6 /126) or larger",
                ));
            }
        }
        let block_bits = BlockBits::for_pool(host_bits, record.block_bits)?;

        let mut first = 0;
        let mut last = (1u64 << host_bits) - 1;
        for family in &families {
            if let Some(start) = family.range_start {
                first = first.max(inside("rangeStart", family.subnet, start)?);
            }
            if let Some(end) = family.range_end {
                last = last.min(inside("rangeEnd", family.subnet, end)?);
            }
        }
        if first > last {
            let reason = "the range is empty: rangeStart lies behind rangeEnd".to_owned();
            let start = families.iter().find_map(|f| f.range_start);
            let shown = start.map_or_else(|| "(none)".to_owned(), |s| s.to_string());
            return Err(ModelError::key("rangeStart", shown, reason));
        }
        let withheld = withheld(&record, &families)?;
        Ok(Self {
            record,
            host_bits,
            block_bits,
            first: HostNumber::new(first),
            last: HostNumber::new(last),
            withheld,
        })
    }

    /// Count of bits that number the hosts of the pool: those of its smaller family, 32 at most.
    pub fn host_bits(&self) -> u8 {
        self.host_bits
    }

    /// The size of the pool's blocks.
    pub fn block_bits(&self) -> BlockBits {
        self.block_bits
    }

    /// The definition that the pool was made from.
    pub fn record(&self) -> &PoolRecord {
        &self.record
    }

    /// The pool's subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.families().map(|f| f.subnet)
    }

    /// The halves of the pool, IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = &FamilyRecord> {
        self.record.ipv4.iter().chain(&self.record.ipv6)
    }

    /// The first host number of the pool's range; handing out may start later.
    pub fn first(&self) -> HostNumber {
        self.first
    }

    /// The last host number of the pool's range.
    pub fn last(&self) -> HostNumber {
        self.last
    }

    /// Returns whether a container or a node may hold `host`: inside the range, and neither the
    /// subnet's own address, nor IPv4 broadcast, nor a gateway, nor excluded.
    pub fn is_assignable(&self, host: HostNumber) -> bool {
        (self.first..=self.last).contains(&host)
            && !self.withheld.iter().any(|(from, to)| (*from..=*to).contains(&host.get()))
    }

    /// The lowest assignable host number that is not below `from`.
    pub fn next_assignable(&self, from: HostNumber) -> Option<HostNumber> {
        let mut host = from.get().max(self.first.get());
        // Each pass leaves a range for good, so there are at most as many as ranges, squared.
        while let Some((_, to)) =
            self.withheld.iter().find(|(from, to)| (*from..=*to).contains(&host))
        {
            host = to.checked_add(1)?;
        }
        (host <= self.last.get()).then_some(HostNumber::new(host))
    }

    /// The addresses of `host`. A host number outside the pool gives none in either family.
    pub fn addresses(&self, pool: PoolIndex, host: HostNumber) -> Addresses {
        let nth =
            |family: &Option<FamilyRecord>| family.as_ref().and_then(|f| f.subnet.nth(host.get()));
        let v4 = match nth(&self.record.ipv4) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let v6 = match nth(&self.record.ipv6) {
            Some(IpAddr::V6(address)) => Some(address),
            _ => None,
        };
        let mac = v4.map_or_else(|| MacAddr::for_ipv6_only(pool, host), MacAddr::for_ipv4);
        Addresses { v4, v6, mac }
    }

    /// The host number of `address`, if a subnet of the pool holds it.
    pub fn host_number(&self, address: IpAddr) -> Option<HostNumber> {
        let number = self.families().find_map(|f| f.subnet.host_number(address))?;
        (number >> self.host_bits == 0).then_some(HostNumber::new(number))
    }
}

/// The host number of `address`, or a refusal that names the key it stands under.
fn inside(key: &'static str, subnet: Subnet, address: IpAddr) -> Result<u64, ModelError> {
    subnet.host_number(address).ok_or_else(|| {
        ModelError::key(key, address, format!("the address lies outside its subnet {subnet}"))
    })
}

/// Host numbers that are never handed out, as inclusive ranges of host numbers.
fn withheld(
    record: &PoolRecord,
    families: &[&FamilyRecord],
) -> Result<Vec<(u64, u64)>, ModelError> {
    // Host 0 is the subnet's own address in IPv4 and the subnet-router anycast address in IPv6
    // (RFC 4291 §2.6.1).
    let mut ranges = vec![(0, 0)];
    for family in families {
        let broadcast = family.subnet.is_ipv4().then(|| (1u64 << family.subnet.host_bits()) - 1);
        ranges.extend(broadcast.map(|host| (host, host)));
        if let Some(gateway) = family.gateway {
            let host = inside("gateway", family.subnet, gateway)?;
            if host == 0 || Some(host) == broadcast {
                let reason =
                    format!("this is the network or broadcast address of {}", family.subnet);
                return Err(ModelError::key("gateway", gateway, reason));
            }
            ranges.push((host, host));
        }
    }
    for excluded in &record.exclude {
        let Some(family) = families.iter().find(|f| f.subnet.is_ipv4() == excluded.is_ipv4())
        else {
            return Err(ModelError::key("exclude", excluded, "the pool has no such family"));
        };
        let from = inside("exclude", family.subnet, excluded.network())?;
        let bits = match excluded {
            IpNetwork::V4(net) => 32 - net.prefix(),
            IpNetwork::V6(net) => 128 - net.prefix(),
        };
        let size = 1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
        ranges.push((from, from.saturating_add(size - 1)));
    }
    Ok(ranges)
}

impl TryFrom<PoolRecord> for Pool {
    type Error = ModelError;
    fn try_from(record: PoolRecord) -> Result<Self, ModelError> {
        Self::new(record)
    }
}

impl From<Pool> for PoolRecord {
    fn from(pool: Pool) -> PoolRecord {
        pool.record
    }
}

#[cfg(test)]
mod tests;
