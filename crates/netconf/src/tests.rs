use super::*;

fn parse(json: &str) -> Result<NetConf, NetConfError> {
    let Value::Object(config) = serde_json::from_str(json).unwrap() else { panic!("{json}") };
    NetConf::parse(&config)
}

fn refusal(json: &str) -> String {
    parse(json).unwrap_err().to_string()
}

#[test]
fn reads_the_documented_example() {
    let conf = parse(
        r#"{"type":"weft","isGateway":true,"ipMasq":true,
            "ipam":{"type":"weft-ipam","subnet":"10.9.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}"#,
    )
    .unwrap();
    assert_eq!(conf.spec.mode, Some(Mode::Gateway));
    assert_eq!(conf.spec.masquerade, Some(Masquerade::On));
    assert_eq!(conf.spec.pools.len(), 1);
    assert_eq!(conf.routes.unwrap()[0].dst.to_string(), "0.0.0.0/0");
}

#[test]
fn a_name_alone_asks_for_nothing() {
    let conf = parse(r#"{"type":"weft","ipam":{"type":"weft-ipam"}}"#).unwrap();
    assert!(!conf.spec.can_create());
    assert_eq!(conf.spec, NetworkSpec::default());
    assert_eq!(conf.routes, None);
}

#[test]
fn keys_of_a_foreign_main_plugin_are_its_own() {
    let conf = parse(
        r#"{"type":"bridge","isGateway":false,"ipMasq":true,"mtu":9000,"vni":0,
            "ipam":{"type":"weft-ipam","subnet":"10.9.0.0/16"}}"#,
    )
    .unwrap();
    assert_eq!((conf.spec.mode, conf.spec.masquerade, conf.spec.mtu), (None, None, None));
    assert_eq!(conf.spec.pools.len(), 1);
}

#[test]
fn go_programs_may_write_keys_in_another_case() {
    let conf =
        parse(r#"{"Type":"weft","IsGateway":false,"IPAM":{"Subnet":"10.9.0.0/16"}}"#).unwrap();
    assert_eq!(conf.spec.mode, Some(Mode::Internal));
    assert_eq!(conf.spec.pools.len(), 1);
}

#[test]
fn two_lists_of_ranges_of_different_families_are_pairs() {
    let conf = parse(
        r#"{"type":"weft","ipam":{
            "ranges":[[{"subnet":"fd00:9::/64"}],
                      [{"subnet":"10.9.0.0/16","rangeStart":"10.9.1.0"}]],
            "exclude":["10.9.2.0/24","fd00:9::7"]}}"#,
    )
    .unwrap();
    let pool = &conf.spec.pools[0];
    assert_eq!(conf.spec.pools.len(), 1);
    assert!(pool.ipv4.as_ref().unwrap().range_start.is_some() && pool.ipv6.is_some());
    assert_eq!(pool.exclude.len(), 2);
}

#[test]
fn one_list_of_ranges_is_several_pools() {
    let conf = parse(
        r#"{"type":"weft",
            "ipam":{"ranges":[[{"subnet":"10.9.0.0/16"},{"subnet":"10.10.0.0/16"}]]}}"#,
    )
    .unwrap();
    assert_eq!(conf.spec.pools.len(), 2);
}

#[test]
fn refusals_name_key_and_value() {
    for (json, begin) in [
        (r#"{"type":"weft","vni":"x"}"#, r#"vni "x": "#),
        (r#"{"type":"weft","vni":0}"#, "vni 0: "),
        (r#"{"type":"weft","mtu":100}"#, "mtu 100: "),
        (r#"{"type":"weft","isGateway":"yes"}"#, r#"isGateway "yes": "#),
        (r#"{"type":"weft","ipam":7}"#, "ipam 7: "),
        (r#"{"ipam":{"subnet":"10.9.0.1/16"}}"#, "subnet 10.9.0.1/16: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/31"}}"#, "subnet 10.9.0.0/31: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","gateway":"10.8.0.1"}}"#, "gateway 10.8.0.1: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","gateway":"x"}}"#, "gateway x: "),
        (r#"{"ipam":{"gateway":"10.9.0.1"}}"#, "gateway 10.9.0.1: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","rangeEnd":"10.8.0.1"}}"#, "rangeEnd 10.8.0.1: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","exclude":["10.8.0.0/24"]}}"#, "exclude 10.8.0.0/24: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","exclude":["?"]}}"#, "exclude ?: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","blockBits":20}}"#, "blockBits 20: "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","routes":[{"dst":"everywhere"}]}}"#, "routes "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","routes":{"dst":"0.0.0.0/0"}}}"#, "routes "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","routes":[["0.0.0.0/0",null]]}}"#, "routes "),
        (r#"{"ipam":{"subnet":"10.9.0.0/16","routes":["0.0.0.0/0"]}}"#, "routes "),
        (r#"{"ipam":{"ranges":[{"subnet":"10.9.0.0/16"}]}}"#, "ranges "),
        (r#"{"ipam":{"ranges":[[{}]]}}"#, "ranges "),
        (
            r#"{"ipam":{"ranges":[[{"subnet":"10.9.0.0/16"},{"subnet":"fd00::/64"}]]}}"#,
            "ranges fd00::/64: ",
        ),
        (
            r#"{"ipam":{"ranges":[[{"subnet":"10.9.0.0/16"}],[{"subnet":"10.8.0.0/16"}]]}}"#,
            "ranges ",
        ),
    ] {
        let text = refusal(json);
        assert!(text.starts_with(begin), "{json}: {text}");
    }
}

#[test]
fn a_route_leads_to_a_network_whatever_host_it_was_written_with() {
    let conf = parse(
        r#"{"ipam":{"subnet":"10.9.0.0/16",
            "routes":[{"dst":"10.77.1.5/16","gw":"10.9.0.3"},{"dst":"fd77::5/64"}]}}"#,
    )
    .unwrap();
    let written = |routes: &[Route]| {
        routes.iter().map(|route| route.dst.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(written(&conf.routes.unwrap()), "10.77.0.0/16 fd77::/64");
    assert_eq!(written(&conf.spec.routes), "10.77.0.0/16 fd77::/64");
}

#[test]
fn ranges_of_the_runtime_stand_in_for_those_of_the_same_family() {
    let subnets = |json: &str| {
        let pools = parse(json).unwrap().spec.pools;
        let subnet = |family: &Option<weft_model::pool::FamilyRecord>| {
            family.as_ref().map_or_else(|| "-".to_owned(), |f| f.subnet.to_string())
        };
        pools.iter().map(|p| format!("{} {}", subnet(&p.ipv4), subnet(&p.ipv6))).collect::<Vec<_>>()
    };
    let ipam = r#""ipam":{"ranges":[[{"subnet":"10.9.0.0/16"}],[{"subnet":"fd00:9::/64"}]]}"#;
    for (given, expected) in [
        ("null", "10.9.0.0/16 fd00:9::/64"),
        ("[]", "10.9.0.0/16 fd00:9::/64"),
        (r#"[[{"subnet":"10.8.0.0/16"}]]"#, "10.8.0.0/16 fd00:9::/64"),
        (
            r#"[{"Subnet":"10.8.0.0/16","RangeStart":"","RangeEnd":"","Gateway":""}]"#,
            "10.8.0.0/16 fd00:9::/64",
        ),
        (r#"[[{"subnet":"fd00:8::/64"}],[{"subnet":"10.8.0.0/16"}]]"#, "10.8.0.0/16 fd00:8::/64"),
    ] {
        let json = format!(r#"{{{ipam},"runtimeConfig":{{"ipRanges":{given}}}}}"#);
        assert_eq!(subnets(&json), [expected], "{given}");
    }
    let alone = r#"{"ipam":{},"runtimeConfig":{"ipRanges":[[{"subnet":"10.8.0.0/16"}]]}}"#;
    assert_eq!(subnets(alone), ["10.8.0.0/16 -"]);
}

#[test]
fn refuses_to_keep_addresses_for_ever() {
    let keep =
        |seconds: u64| parse(&format!(r#"{{"type":"weft","ipam":{{"stickySeconds":{seconds}}}}}"#));
    assert_eq!(keep(315_360_000).unwrap().sticky_seconds, 315_360_000);
    for seconds in [315_360_001, u64::MAX] {
        let error = keep(seconds).unwrap_err().to_string();
        assert!(error.contains(&format!("stickySeconds {seconds}: at most")), "{error}");
    }
}
