use std::ffi::OsString;

use serde_json::json;

use super::*;

/// A call of ADD with this key in an otherwise good configuration.
fn request(key: &str, value: &Value) -> Request {
    let environment = Environment::read(|name| {
        let value = match name {
            "CNI_COMMAND" => "ADD",
            "CNI_CONTAINERID" => "c1",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/c1",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(OsString::from(value))
    });
    let config = json!({"cniVersion": "1.0.0", "name": "red", "type": "weft", key: value});
    Request::new(environment.unwrap().unwrap(), config.to_string().into_bytes()).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, CniError>) -> String {
    let json = result.unwrap_err().to_json("1.0.0");
    assert_eq!(json["code"], 7, "{json}");
    json["msg"].as_str().unwrap().to_owned()
}

#[test]
fn refuses_arguments_that_are_no_object_by_name() {
    for value in [json!(7), json!("ips"), json!(true), json!([]), json!(["10.9.0.5"])] {
        for (key, begin) in [("runtimeConfig", "runtimeConfig "), ("args", "args ")] {
            let request = request(key, &value);
            for text in [refusal(request.requested_ips()), refusal(request.requested_mac())] {
                assert!(text.starts_with(begin) && text.contains("an object"), "{value}: {text}");
            }
        }
        let request = request("args", &json!({"cni": value}));
        for text in [refusal(request.requested_ips()), refusal(request.requested_mac())] {
            assert!(text.starts_with("args.cni "), "{value}: {text}");
        }
    }
}

#[test]
fn accepts_arguments_that_are_absent_or_for_others() {
    for (key, value) in [
        ("runtimeConfig", json!(null)),
        ("runtimeConfig", json!({})),
        ("runtimeConfig", json!({"portMappings": []})),
        ("args", json!(null)),
        ("args", json!({"org.example": 7})),
        ("args", json!({"cni": null})),
        ("args", json!({"cni": {"ips": null}})),
    ] {
        let request = request(key, &value);
        assert_eq!(request.requested_ips().unwrap(), [""; 0], "{key} {value}");
        assert_eq!(request.requested_mac().unwrap(), None, "{key} {value}");
    }
    let ips = json!({"ips": ["10.9.0.5/16"]});
    assert_eq!(request("RuntimeConfig", &ips).requested_ips().unwrap(), ["10.9.0.5/16"]);
    let request = request("args", &json!({"cni": ips}));
    assert_eq!(request.requested_ips().unwrap(), ["10.9.0.5/16"]);
}

#[test]
fn a_list_is_no_object() {
    let servers = json!({"nameservers": ["192.0.2.1"]});
    assert_eq!(request("dns", &servers).dns().unwrap().nameservers, ["192.0.2.1"]);
    for list in [json!([]), json!([["192.0.2.1"]]), json!([["192.0.2.1"], "a", [], []])] {
        let text = refusal(request("dns", &list).dns());
        assert!(text.starts_with("dns "), "{list}: {text}");
    }
    for result in [
        json!({"dns": [["192.0.2.1"]]}),
        json!({"ips": [{"address": "10.9.0.5/16"}], "routes": [["0.0.0.0/0"]]}),
        json!({"ips": [[0, "10.9.0.5/16"]]}),
        json!({"interfaces": [["eth0"]]}),
        json!({"cniVersion": "0.2.0", "ip4": ["10.9.0.5/16"]}),
        json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.5/16", "routes": [["0.0.0.0/0"]]}}),
    ] {
        let text = refusal(request("prevResult", &result).prev_result());
        assert!(text.starts_with("prevResult: "), "{result}: {text}");
    }
}

#[test]
fn a_route_leads_to_a_network_whatever_host_it_was_written_with() {
    for result in [
        json!({"routes": [{"dst": "10.77.1.5/16"}, {"dst": "fd77::5/64", "gw": "fd09::1"}]}),
        json!({"cniVersion": "0.2.0",
               "ip4": {"ip": "10.9.0.5/16", "routes": [{"dst": "10.77.1.5/16"}]},
            "ip6": {"ip": "fd09::5/64", "routes": [{"dst": "fd77::5/64"}]}}),
    ] {
        let result = request("prevResult", &result).prev_result().unwrap().unwrap();
        let routes: Vec<String> = result.routes.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(routes, ["10.77.0.0/16", "fd77::/64"]);
    }
}
