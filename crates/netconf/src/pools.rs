//! From `host-local`'s range sets to pools.
//!
//! `host-local` gives a container one address from each outer list. weft gives it one host number,
//! which is an address in each family of one pool. So one outer list is a list of single-family
//! pools, and two outer lists of different families are pools of pairs, first with first.

use ipnetwork::IpNetwork;
use weft_model::Subnet;
use weft_model::pool::{FamilyRecord, PoolRecord};

use crate::error::NetConfError;
use crate::wire::{Ipam, Range};

/// The pools of the `ipam` section and of `given`, the ranges that come from the runtime. Those
/// stand in for the configuration's own of the same family.
pub(crate) fn from_wire(
    ipam: &Ipam,
    given: &[Vec<Range>],
) -> Result<Vec<PoolRecord>, NetConfError> {
    let mut sets = families(given.iter().map(Vec::as_slice))?;
    let first = ipam.first.iter().map(std::slice::from_ref);
    let mut own = families(first.chain(ipam.ranges.iter().map(Vec::as_slice)))?;
    let is_ipv4 = |set: &Vec<FamilyRecord>| set[0].subnet.is_ipv4();
    own.retain(|own| !sets.iter().any(|set| is_ipv4(set) == is_ipv4(own)));
    sets.extend(own);
    let single = |family: FamilyRecord| {
        if family.subnet.is_ipv4() {
            PoolRecord { ipv4: Some(family), ..PoolRecord::default() }
        } else {
            PoolRecord { ipv6: Some(family), ..PoolRecord::default() }
        }
    };
    let mut sets = sets.into_iter();
    let mut pools: Vec<PoolRecord> = match (sets.next(), sets.next(), sets.next()) {
        (None, ..) => vec![],
        (Some(only), None, _) => only.into_iter().map(single).collect(),
        (Some(a), Some(b), None) => pairs(a, b)?,
        (_, _, Some(third)) => {
            return Err(NetConfError(format!(
                "ranges {}: a container gets one address in each family, so there are at most two \
                 lists of ranges",
                third[0].subnet
            )));
        }
    };
    exclude(&mut pools, &ipam.exclude)?;
    for pool in &mut pools {
        pool.block_bits = ipam.block_bits;
    }
    Ok(pools)
}

/// The ranges list by list, each of one family; empty lists are none.
fn families<'a>(
    sets: impl Iterator<Item = &'a [Range]>,
) -> Result<Vec<Vec<FamilyRecord>>, NetConfError> {
    let mut read = vec![];
    for set in sets.filter(|set| !set.is_empty()) {
        let set = set.iter().map(family).collect::<Result<Vec<_>, _>>()?;
        same_family(&set)?;
        read.push(set);
    }
    Ok(read)
}

fn family(range: &Range) -> Result<FamilyRecord, NetConfError> {
    let subnet: Subnet = range.subnet.parse()?;
    let address = |key: &str, value: &Option<String>| match value {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| NetConfError(format!("{key} {text}: this is not an IP address"))),
    };
    Ok(FamilyRecord {
        subnet,
        gateway: address("gateway", &range.gateway)?,
        range_start: address("rangeStart", &range.start)?,
        range_end: address("rangeEnd", &range.end)?,
    })
}

fn same_family(set: &[FamilyRecord]) -> Result<(), NetConfError> {
    match set.iter().find(|family| family.subnet.is_ipv4() != set[0].subnet.is_ipv4()) {
        None => Ok(()),
        Some(other) => Err(NetConfError(format!(
            "ranges {}: not of the same family as {} in the same list",
            other.subnet, set[0].subnet
        ))),
    }
}

fn pairs(a: Vec<FamilyRecord>, b: Vec<FamilyRecord>) -> Result<Vec<PoolRecord>, NetConfError> {
    let (v4, v6) = if a[0].subnet.is_ipv4() { (a, b) } else { (b, a) };
    if v4[0].subnet.is_ipv4() == v6[0].subnet.is_ipv4() {
        return Err(NetConfError(format!(
            "ranges {}: a container gets one address in each family, and {} is of the same family",
            v6[0].subnet, v4[0].subnet
        )));
    }
    if v4.len() != v6.len() {
        return Err(NetConfError(format!(
            "ranges {}: {} IPv4 and {} IPv6 ranges do not pair up",
            v4[0].subnet,
            v4.len(),
            v6.len()
        )));
    }
    let pair = |(v4, v6)| PoolRecord { ipv4: Some(v4), ipv6: Some(v6), ..PoolRecord::default() };
    Ok(v4.into_iter().zip(v6).map(pair).collect())
}

fn exclude(pools: &mut [PoolRecord], excluded: &[String]) -> Result<(), NetConfError> {
    for text in excluded {
        let net: IpNetwork = text.parse().map_err(|_| {
            NetConfError(format!("exclude {text}: expected an address or a subnet"))
        })?;
        let holds = |family: &Option<FamilyRecord>| {
            family.as_ref().is_some_and(|family| family.subnet.contains(net.network()))
        };
        let Some(pool) = pools.iter_mut().find(|pool| holds(&pool.ipv4) || holds(&pool.ipv6))
        else {
            return Err(NetConfError(format!("exclude {text}: it lies outside of every subnet")));
        };
        pool.exclude.push(net);
    }
    Ok(())
}
