use serde_json::{Value, json};

use super::*;
use crate::version::Version;

/// Everything that 1.1.0 can say.
fn full() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "wb10000", "mac": "02:42:0a:09:00:02", "mtu": 1450},
            {"name": "wv0123456789abc", "mac": "06:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "mac": "02:42:0a:09:00:05", "mtu": 1450, "sandbox": "/run/netns/c1"},
        ],
        "ips": [
            {"interface": 2, "address": "10.9.0.5/16", "gateway": "10.9.0.1"},
            {"interface": 2, "address": "fd00:9::5/64", "gateway": "fd00:9::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.9.0.1", "mtu": 1400, "advmss": 1360, "priority": 5,
             "table": 0, "scope": 0},
            {"dst": "::/0"},
        ],
        "dns": {"nameservers": ["10.9.0.1"], "domain": "d", "search": ["s"], "options": ["o"]},
    })
}

fn parse(value: &Value) -> CniResult {
    CniResult::parse(value, Version::V1_0_0).unwrap()
}

#[test]
fn the_newest_version_says_everything() {
    assert_eq!(parse(&full()).render(Version::V1_1_0).unwrap(), full());
}

#[test]
fn version_1_0_0_lacks_what_1_1_0_brought() {
    let json = parse(&full()).render(Version::V1_0_0).unwrap();
    assert_eq!(
        json["interfaces"][2],
        json!({"name": "eth0", "mac": "02:42:0a:09:00:05", "sandbox": "/run/netns/c1"})
    );
    assert_eq!(json["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.9.0.1"}));
    assert_eq!(
        json["ips"][0],
        json!({"interface": 2, "address": "10.9.0.5/16", "gateway": "10.9.0.1"})
    );
}

#[test]
fn versions_0_3_to_0_4_say_the_family() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let json = parse(&full()).render(version).unwrap();
        assert_eq!(json["cniVersion"], version.as_str());
        assert_eq!(json["ips"][0]["version"], "4");
        assert_eq!(json["ips"][1]["version"], "6");
        assert_eq!(parse(&json).ips, parse(&full()).ips);
    }
}

#[test]
fn versions_0_1_and_0_2_have_one_address_of_each_family() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        assert_eq!(
            parse(&full()).render(version).unwrap(),
            json!({
                "cniVersion": version.as_str(),
                "ip4": {"ip": "10.9.0.5/16", "gateway": "10.9.0.1",
                        "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]},
                "ip6": {"ip": "fd00:9::5/64", "gateway": "fd00:9::1", "routes": [{"dst": "::/0"}]},
                "dns": {
                    "nameservers": ["10.9.0.1"],
                    "domain": "d",
                    "search": ["s"],
                    "options": ["o"],
                },
            })
        );
    }
    assert!(CniResult::default().render(Version::V0_2_0).is_err());
}

#[test]
fn old_results_are_read_into_the_new_shape() {
    let result = parse(&json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.9.0.5/16", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00:9::5/64"},
    }));
    assert_eq!(result.ips.len(), 2);
    assert_eq!(result.ips[0].address.to_string(), "10.9.0.5/16");
    assert_eq!(result.routes.len(), 1);
}

#[test]
fn reads_results_of_other_programs() {
    let result = parse(&json!({
        "interfaces": [{"name": "eth0", "mac": "02:42:0A:09:00:05"}],
        "ips": [{"address": "10.9.0.5/16", "gateway": ""}],
        "routes": null, "dns": null,
    }));
    assert_eq!(result.interfaces[0].mac, "02:42:0a:09:00:05");
    assert_eq!(result.ips[0].gateway, None);
    assert_eq!(parse(&json!({})), CniResult::default());
    for bad in [
        json!({"ips": [{"address": "x"}]}),
        json!({"ips": 7}),
        json!({"cniVersion": "7"}),
        json!([]),
        json!(7),
    ] {
        assert!(CniResult::parse(&bad, Version::V1_0_0).is_err(), "{bad}");
    }
}
