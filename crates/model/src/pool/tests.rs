use super::*;

fn family(subnet: &str) -> FamilyRecord {
    FamilyRecord::new(subnet.parse().unwrap())
}

fn v4(subnet: &str, gateway: &str) -> PoolRecord {
    let ipv4 = FamilyRecord { gateway: Some(gateway.parse().unwrap()), ..family(subnet) };
    PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() }
}

fn assignable(pool: &Pool) -> Vec<u64> {
    (0..1 << pool.host_bits()).filter(|h| pool.is_assignable(HostNumber::new(*h))).collect()
}

fn refusal(record: PoolRecord) -> String {
    Pool::new(record).unwrap_err().to_string()
}

#[test]
fn withholds_network_broadcast_and_gateway() {
    let pool = Pool::new(v4("10.9.0.0/29", "10.9.0.1")).unwrap();
    assert_eq!(assignable(&pool), [2, 3, 4, 5, 6]);
}

#[test]
fn withholds_what_is_excluded_or_out_of_range() {
    let mut record = v4("10.9.0.0/24", "10.9.0.1");
    let ipv4 = record.ipv4.as_mut().unwrap();
    ipv4.range_start = Some("10.9.0.10".parse().unwrap());
    ipv4.range_end = Some("10.9.0.20".parse().unwrap());
    record.exclude = vec!["10.9.0.12/31".parse().unwrap(), "10.9.0.20".parse().unwrap()];
    assert_eq!(assignable(&Pool::new(record).unwrap()), [10, 11, 14, 15, 16, 17, 18, 19]);
}

#[test]
fn one_host_number_gives_an_address_in_each_family() {
    let record = PoolRecord {
        ipv4: Some(family("10.9.0.0/16")),
        ipv6: Some(family("fd00:9::/64")),
        ..PoolRecord::default()
    };
    let pool = Pool::new(record).unwrap();
    assert_eq!(pool.host_bits(), 16, "the smaller family decides");
    let addresses = pool.addresses(PoolIndex::new(0).unwrap(), HostNumber::new(0x105));
    assert_eq!(addresses.to_string(), "10.9.1.5, fd00:9::105");
    assert_eq!(addresses.mac.to_string(), "02:42:0a:09:01:05");
    for address in addresses.iter() {
        assert_eq!(pool.host_number(address), Some(HostNumber::new(0x105)));
    }
    assert_eq!(pool.host_number("fd00:9::1:0".parse().unwrap()), None);
}

#[test]
fn an_ipv6_pool_needs_no_ipv4() {
    let record = PoolRecord { ipv6: Some(family("fd00:9::/64")), ..PoolRecord::default() };
    let pool = Pool::new(record).unwrap();
    assert_eq!(pool.host_bits(), 32);
    let addresses = pool.addresses(PoolIndex::new(2).unwrap(), HostNumber::new(7));
    assert_eq!(addresses.to_string(), "fd00:9::7");
    assert_eq!(addresses.mac.to_string(), "06:02:00:00:00:07");
}

#[test]
fn refusals_name_key_value_and_reason() {
    assert_eq!(
        refusal(v4("10.9.0.0/24", "10.8.0.1")),
        "gateway 10.8.0.1: the address lies outside its subnet 10.9.0.0/24"
    );
    assert!(refusal(v4("10.9.0.0/24", "10.9.0.255")).starts_with("gateway 10.9.0.255: "));
    assert!(refusal(v4("10.9.0.0/31", "10.9.0.1")).contains("too small"));
    assert!(refusal(PoolRecord::default()).contains("at least one subnet"));

    let mut record = v4("10.9.0.0/24", "10.9.0.1");
    record.ipv4.as_mut().unwrap().range_end = Some("10.9.1.1".parse().unwrap());
    assert!(refusal(record).starts_with("rangeEnd 10.9.1.1: "));

    let mut record = v4("10.9.0.0/24", "10.9.0.1");
    record.ipv4.as_mut().unwrap().range_start = Some("10.9.0.9".parse().unwrap());
    record.ipv4.as_mut().unwrap().range_end = Some("10.9.0.8".parse().unwrap());
    assert!(refusal(record).contains("range is empty"));

    let mut record = v4("10.9.0.0/24", "10.9.0.1");
    record.exclude = vec!["fd00::1".parse().unwrap()];
    assert!(refusal(record).starts_with("exclude fd00::1/128: "));

    let record = PoolRecord { ipv4: Some(family("fd00::/64")), ..PoolRecord::default() };
    assert!(refusal(record).contains("not an IPv4 subnet"));
}

#[test]
fn a_pool_survives_the_store() {
    let pool = Pool::new(v4("10.9.0.0/16", "10.9.0.1")).unwrap();
    let json = serde_json::to_string(&pool).unwrap();
    assert_eq!(json, r#"{"ipv4":{"subnet":"10.9.0.0/16","gateway":"10.9.0.1"}}"#);
    assert_eq!(serde_json::from_str::<Pool>(&json).unwrap(), pool);
    assert!(serde_json::from_str::<Pool>(r#"{"ipv4":{"subnet":"10.9.0.1/16"}}"#).is_err());
}
