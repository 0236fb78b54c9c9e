use super::*;
use crate::pool::PoolRecord;

fn pool(subnet: &str) -> Pool {
    let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
    Pool::new(PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() }).unwrap()
}

fn record(name: &str, subnets: &[&str]) -> NetworkRecord {
    NetworkRecord {
        name: NetworkName::new(name).unwrap(),
        incarnation: Incarnation::default(),
        vni: Vni::FIRST_AUTOMATIC,
        mode: Mode::Gateway,
        masquerade: Masquerade::Off,
        mtu: None,
        pools: subnets.iter().map(|subnet| pool(subnet)).collect(),
        routes: vec![],
    }
}

#[test]
fn finds_the_block_of_an_address_in_any_pool() {
    let network = Network::new(record("n", &["10.9.0.0/16", "10.10.0.0/24"])).unwrap();
    let block = |address: &str| network.block_of(address.parse().unwrap()).map(|b| b.to_string());
    assert_eq!(block("10.9.0.65").as_deref(), Some("0-64-6"));
    assert_eq!(block("10.10.0.17").as_deref(), Some("1-16-4"));
    assert_eq!(block("10.11.0.1"), None);
}

#[test]
fn a_blocks_addresses_are_those_that_can_be_in_use() {
    let network = Network::new(record("n", &["10.10.0.0/24"])).unwrap();
    let addresses = |block: &str| network.addresses_of(block.parse().unwrap()).count();
    assert_eq!(addresses("0-0-4"), 15, "all but the subnet's own address");
    assert_eq!(addresses("0-16-4"), 16);
    assert_eq!(addresses("0-240-4"), 15, "all but broadcast");
    assert_eq!(addresses("0-0-6"), 0, "the pool has no blocks of this size");
    assert_eq!(addresses("7-0-4"), 0, "the network has no such pool");
}

#[test]
fn overlapping_subnets_are_refused_within_a_network() {
    let refusal = Network::new(record("n", &["10.9.0.0/16", "10.9.5.0/24"])).unwrap_err();
    assert_eq!(refusal.to_string(), "subnet 10.9.5.0/24: overlaps 10.9.0.0/16 of the same network");
}

#[test]
fn refuses_overlapping_subnets_between_networks_with_a_gateway() {
    let a = Network::new(record("a", &["10.9.0.0/16"])).unwrap();
    let b = Network::new(record("b", &["10.9.5.0/24"])).unwrap();
    assert!(a.conflict_with(&b).unwrap().to_string().contains("of network b"));
    let internal = NetworkRecord { mode: Mode::Internal, ..record("c", &["10.9.5.0/24"]) };
    assert_eq!(a.conflict_with(&Network::new(internal).unwrap()), None);
}

#[test]
fn an_mtu_that_cannot_work_is_refused() {
    for mtu in [0, 1279, 65_536] {
        let refused = NetworkRecord { mtu: Some(mtu), ..record("n", &["10.9.0.0/16"]) };
        assert!(Network::new(refused).unwrap_err().to_string().starts_with("mtu "));
    }
}

#[test]
fn records_are_legible_in_the_store() {
    let network = Network::new(record("n", &["10.9.0.0/16"])).unwrap();
    let json = serde_json::to_string(&network).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"name":"n","incarnation":"00000000","vni":10000,"mode":"gateway","#,
            r#""masquerade":"off","#,
            r#""pools":[{"ipv4":{"subnet":"10.9.0.0/16"}}]}"#
        )
    );
    assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
}

#[test]
fn an_extension_keeps_what_there_is_and_is_no_change_when_repeated() {
    let network = Network::new(record("n", &["10.9.0.0/24"])).unwrap();
    let new = |subnet: &str| PoolRecord {
        ipv4: Some(FamilyRecord::new(subnet.parse().unwrap())),
        ..PoolRecord::default()
    };
    let extended = network.extended(&[new("10.8.0.0/24")]).unwrap();
    assert_eq!(extended.record().pools[0], network.record().pools[0]);
    assert_eq!(extended.locate("10.8.0.5".parse().unwrap()).unwrap().0.get(), 1);
    let gateway = extended.family_of("10.8.0.5".parse().unwrap()).unwrap().gateway;
    assert_eq!(gateway, Some("10.8.0.1".parse().unwrap()));
    assert_eq!(extended.extended(&[new("10.8.0.0/24")]).unwrap(), extended);
}

#[test]
fn an_extension_of_other_families_or_with_a_known_subnet_is_refused() {
    let network = Network::new(record("n", &["10.9.0.0/24"])).unwrap();
    let refusal = |pool: PoolRecord| network.extended(&[pool]).unwrap_err().to_string();
    let v6 = Some(FamilyRecord::new("fd00::/64".parse().unwrap()));
    let other = refusal(PoolRecord { ipv6: v6, ..PoolRecord::default() });
    assert!(other.starts_with("subnet fd00::/64: a new pool needs the same families"), "{other}");
    let v4 = FamilyRecord::new("10.9.0.0/16".parse().unwrap());
    let wider = refusal(PoolRecord { ipv4: Some(v4), ..PoolRecord::default() });
    assert!(wider.starts_with("subnet 10.9.0.0/16: overlaps 10.9.0.0/24"), "{wider}");
}

#[test]
fn finds_the_host_of_a_mac_in_every_kind_of_pool() {
    let v6 = PoolRecord {
        ipv6: Some(FamilyRecord::new("fd00:8::/64".parse().unwrap())),
        ..PoolRecord::default()
    };
    let mut record = record("n", &["10.9.0.0/16", "10.10.0.0/24"]);
    record.pools.push(Pool::new(v6).unwrap());
    let network = Network::new(record).unwrap();
    for (address, pool) in [("10.9.1.5", 0), ("10.10.0.7", 1), ("fd00:8::1:5", 2)] {
        let (index, host) = network.locate(address.parse().unwrap()).unwrap();
        assert_eq!(index.get(), pool);
        let mac = network.addresses(index, host).unwrap().mac;
        assert_eq!(network.host_of(mac), Some((index, host)), "{address}");
    }
    for foreign in
        ["02:42:0a:0b:00:01", "02:43:0a:09:00:01", "06:00:0a:09:00:01", "06:07:00:00:00:01"]
    {
        assert_eq!(network.host_of(foreign.parse().unwrap()), None, "{foreign}");
    }
}
