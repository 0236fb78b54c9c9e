use std::collections::BTreeMap;

use proptest::prelude::*;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Block, NetworkName, NetworkSpec, Vni};

use super::*;

/// A pool of both families, one of IPv4 and one of IPv6, in blocks of four.
fn network() -> Network {
    let family = |subnet: &str| Some(FamilyRecord::new(subnet.parse().unwrap()));
    let pool = |ipv4, ipv6| PoolRecord { ipv4, ipv6, block_bits: Some(2), ..PoolRecord::default() };
    let pools =
        vec![pool(family("10.9.0.0/28"), family("fd09::/124")), pool(family("10.8.0.0/29"), None)];
    NetworkSpec { pools, ..NetworkSpec::default() }
        .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

/// The same with a pool of IPv6 alone.
fn ipv6_only() -> Network {
    let ipv6 = Some(FamilyRecord::new("fd09::/124".parse().unwrap()));
    let pool = PoolRecord { ipv6, block_bits: Some(2), ..PoolRecord::default() };
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

fn vtep(node: u8) -> IpAddr {
    IpAddr::from([198, 18, 0, node])
}

fn block(text: &str) -> Block {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

/// An address of a pool, or one that no pool holds.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..16).prop_map(|host| IpAddr::from([10, 9, 0, host])),
        (0u8..8).prop_map(|host| IpAddr::from([10, 8, 0, host])),
        (0u16..16).prop_map(|host| IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, host])),
        (0u8..2).prop_map(|host| IpAddr::from([192, 0, 2, host])),
    ]
}

/// A MAC that follows from an address, of either kind, or another.
fn any_mac() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        (0u8..16).prop_map(|host| MacAddr::from_bytes([2, 0x42, 10, 9, 0, host])),
        (0u8..16).prop_map(|host| MacAddr::from_bytes([6, 0, 0, 0, 0, host])),
        (0u8..3).prop_map(|n| MacAddr::from_bytes([0xa, 0, 0, 0, 0, n])),
    ]
}

fn table() -> impl Strategy<Value = PeerTable> {
    let blocks = prop::collection::btree_map((0u64..2, 0u64..4), 0u8..3, 0..6);
    let endpoint = prop_oneof![
        3 => (any_mac(), 0u8..3).prop_map(|(mac, node)| Endpoint::At { mac, vtep: vtep(node) }),
        1 => Just(Endpoint::Here),
        1 => Just(Endpoint::Unreachable),
    ];
    let endpoints = prop::collection::btree_map(address(), endpoint, 0..8);
    (blocks, endpoints).prop_map(|(blocks, endpoints)| PeerTable {
        blocks: blocks
            .into_iter()
            .map(|((pool, n), node)| (block(&format!("{pool}-{}-2", 4 * n)), vtep(node)))
            .collect(),
        endpoints,
    })
}

/// `old`, or `old` with a few things of `new`: changes are small as a rule.
fn partly(old: &PeerTable, new: PeerTable, keep: bool) -> PeerTable {
    if !keep {
        return new;
    }
    let mut table = old.clone();
    table.blocks.extend(new.blocks.into_iter().take(1));
    table.endpoints.extend(new.endpoints.into_iter().take(1));
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn change_makes_entries_of_new_table_from_those_of_old(
        old in table(), new in table(), keep: bool, v6: bool,
    ) {
        let network = if v6 { ipv6_only() } else { network() };
        let new = partly(&old, new, keep);
        let mut entries = Entries::of(&network, &old);
        let desired = Entries::of(&network, &new);
        let changes = changes_between(&network, &old, &new);
        let needed = entries.changes_to(&desired).count();
        prop_assert_eq!(changes.len(), needed, "more than what differs: {:?}", &changes);
        for change in changes {
            entries.apply(change);
            // No address points at a MAC that is not known.
            let gap = entries.neighbours.values().find(|mac| {
                !entries.bridge.contains(mac) || !entries.vxlan.contains_key(mac)
            });
            prop_assert_eq!(gap, None, "after {:?}", change);
        }
        prop_assert_eq!(entries, desired);
    }

    #[test]
    fn comparison_leads_from_any_entries_to_those_desired(a in table(), b in table()) {
        let network = network();
        let (mut now, desired) = (Entries::of(&network, &a), Entries::of(&network, &b));
        let changes: Vec<Change> = now.changes_to(&desired).collect();
        for change in changes {
            now.apply(change);
        }
        prop_assert_eq!(now.changes_to(&desired).next(), None);
        prop_assert_eq!(now, desired);
    }
}

fn one_block(node: u8) -> PeerTable {
    PeerTable { blocks: BTreeMap::from([(block("0-4-2"), vtep(node))]), ..PeerTable::default() }
}

#[test]
fn block_is_all_its_addresses_in_both_families() {
    let entries = Entries::of(&network(), &one_block(2));
    assert_eq!((entries.neighbours.len(), entries.bridge.len(), entries.vxlan.len()), (8, 4, 4));
    assert_eq!(entries.neighbours[&ip("10.9.0.5")], mac("02:42:0a:09:00:05"));
    assert_eq!(entries.neighbours[&ip("fd09::5")], mac("02:42:0a:09:00:05"));
    assert_eq!(entries.vxlan[&mac("02:42:0a:09:00:05")], vtep(2));
}

#[test]
fn block_that_moves_is_replaced_and_not_removed() {
    let changes = changes_between(&network(), &one_block(2), &one_block(3));
    assert_eq!(changes.len(), 4);
    assert!(
        changes.iter().all(|change| matches!(change, Change::SetVxlan(_, to) if *to == vtep(3)))
    );
}

#[test]
fn endpoints_override_blocks() {
    let mut table = one_block(2);
    let at = |mac: &str| Endpoint::At { mac: mac.parse().unwrap(), vtep: vtep(3) };
    table.endpoints.insert(ip("10.9.0.2"), at("02:00:00:00:00:01"));
    table.endpoints.insert(ip("10.9.0.6"), at("02:00:00:00:00:02"));
    for (address, endpoint) in [("10.9.0.4", Endpoint::Here), ("10.9.0.7", Endpoint::Unreachable)] {
        table.endpoints.insert(ip(address), endpoint);
        table.endpoints.insert(ip(&address.replace("10.9.0.", "fd09::")), endpoint);
    }
    let entries = Entries::of(&network(), &table);
    assert_eq!(entries.neighbours[&ip("10.9.0.2")], mac("02:00:00:00:00:01"), "of another block");
    assert_eq!(entries.neighbours[&ip("10.9.0.6")], mac("02:00:00:00:00:02"), "its own MAC");
    assert_eq!(entries.vxlan[&mac("02:42:0a:09:00:06")], vtep(2), "the IPv6 address stays");
    for absent in ["10.9.0.4", "fd09::4", "10.9.0.7", "fd09::7"] {
        assert!(!entries.neighbours.contains_key(&ip(absent)), "{absent}");
    }
    assert!(!entries.bridge.contains(&mac("02:42:0a:09:00:04")));
}

#[test]
fn block_rule_applies_again_once_endpoint_is_gone() {
    let (address, own) = (ip("10.9.0.5"), mac("02:00:00:00:00:01"));
    let mut old = one_block(2);
    old.endpoints.insert(address, Endpoint::At { mac: own, vtep: vtep(3) });
    let changes = changes_between(&network(), &old, &one_block(2));
    let expected = [
        Change::SetNeighbour(address, mac("02:42:0a:09:00:05")),
        Change::RemoveBridge(own),
        Change::RemoveVxlan(own, vtep(3)),
    ];
    assert_eq!(changes, expected);
}

#[test]
fn address_of_one_family_leaves_the_mac_to_that_of_the_other() {
    let mut new = one_block(2);
    new.endpoints.insert(ip("fd09::5"), Endpoint::Here);
    let changes = changes_between(&network(), &one_block(2), &new);
    assert_eq!(changes, [Change::RemoveNeighbour(ip("fd09::5"))]);
}
