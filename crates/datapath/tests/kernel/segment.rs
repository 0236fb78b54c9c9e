//! The bridge and the VXLAN device of a network.

use std::time::Duration;

use serde_json::json;
use weft_datapath::events::Events;
use weft_datapath::segment::{SegmentSpec, ensure, is_intact, remove};

use crate::ground::{has_link, link, on_a_host, sh, spec, try_sh};

/// The same network with IPv6 beside IPv4.
fn dual_stack() -> SegmentSpec {
    let mut spec = spec();
    spec.node_addresses.push("fd09::2/64".parse().unwrap());
    spec.gateways.push("fd09::1".parse().unwrap());
    spec
}

fn ipv6_setting(name: &str) -> String {
    sh(&format!("cat /proc/sys/net/ipv6/conf/{name}")).trim().to_owned()
}

/// Asserts that everything is as `spec()` says.
fn check_all() {
    let bridge = link("wb4242");
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(bridge["mtu"], 1450);
    assert_eq!(bridge["address"], "02:42:0a:09:00:02");
    assert_eq!(bridge["ifalias"], "weft:red");
    assert_eq!(bridge["inet6_addr_gen_mode"], "none");
    assert!(bridge["flags"].as_array().unwrap().contains(&json!("UP")), "{bridge}");

    let vxlan = link("wx4242");
    let data = &vxlan["linkinfo"]["info_data"];
    assert_eq!(vxlan["linkinfo"]["info_kind"], "vxlan");
    assert_eq!((&vxlan["mtu"], &vxlan["master"]), (&json!(1450), &json!("wb4242")));
    assert_eq!((&data["id"], &data["port"]), (&json!(4242), &json!(4789)));
    assert_eq!((&data["local"], &data["learning"]), (&json!("198.18.0.1"), &json!(false)));
    assert_eq!((&data["link"], &data["ttl"]), (&json!("eth0"), &json!(64)));
    assert!(vxlan["flags"].as_array().unwrap().contains(&json!("UP")), "{vxlan}");
    let port = &vxlan["linkinfo"]["info_slave_data"];
    for (flag, value) in [
        ("learning", false),
        ("flood", false),
        ("mcast_flood", false),
        ("bcast_flood", false),
        ("neigh_suppress", true),
    ] {
        assert_eq!(port[flag], value, "{flag} of {port}");
    }

    let addresses = sh("ip -o -4 address show dev wb4242 | awk '{print $4}'");
    assert_eq!(addresses, "10.9.0.2/16\n10.9.0.1/32\n");
    let routes = sh("ip route show dev wb4242");
    assert!(routes.contains("10.9.0.0/16") && routes.contains("src 10.9.0.2"), "{routes}");
}

#[test]
#[ignore = "needs root"]
fn creates_bridge_tunnel_and_addresses() {
    on_a_host(async |netlink| {
        let segment = ensure(&netlink, &spec()).await.unwrap();
        check_all();
        assert_eq!(link("wb4242")["ifindex"], segment.bridge);
        assert_eq!(link("wx4242")["ifindex"], segment.vxlan.unwrap());
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/wb4242/accept_ra"), "0\n");
        assert!(is_intact(&netlink, spec().vni, &segment).await.unwrap());
    });
}

#[test]
#[ignore = "needs root"]
fn creates_bridge_alone_without_an_underlay() {
    on_a_host(async |netlink| {
        let spec = SegmentSpec { tunnel: None, ..spec() };
        let segment = ensure(&netlink, &spec).await.unwrap();
        assert_eq!(segment.vxlan, None);
        assert!(has_link("wb4242") && !has_link("wx4242"));
        assert!(is_intact(&netlink, spec.vni, &segment).await.unwrap());
    });
}

#[test]
#[ignore = "needs root"]
fn adopts_existing_devices_without_a_change() {
    on_a_host(async |netlink| {
        let first = ensure(&netlink, &spec()).await.unwrap();
        let quiet = Duration::from_millis(300);
        // The bridge takes a moment to bring its port up.
        let mut events = Events::subscribe().unwrap();
        while tokio::time::timeout(quiet, events.changed()).await.is_ok() {}
        assert_eq!(ensure(&netlink, &spec()).await.unwrap(), first);
        let event = tokio::time::timeout(quiet, events.changed()).await;
        assert!(event.is_err(), "a caller that repairs on events would do so for ever");
        check_all();
    });
}

#[test]
#[ignore = "needs root"]
fn corrects_changed_settings_on_the_same_devices() {
    on_a_host(async |netlink| {
        let segment = ensure(&netlink, &spec()).await.unwrap();
        for damage in [
            "ip link set wb4242 mtu 1400",
            "ip link set wx4242 mtu 1400",
            "ip link set wb4242 down",
            "ip link set wx4242 down",
            "ip link set wb4242 address 02:00:00:00:00:09",
            "ip link set wb4242 alias mine",
            "ip link set wx4242 nomaster",
            "bridge link set dev wx4242 learning on",
            "bridge link set dev wx4242 flood on mcast_flood on bcast_flood on",
            "bridge link set dev wx4242 neigh_suppress off",
            "ip address flush dev wb4242",
            "ip address add 10.77.0.1/24 dev wb4242",
            "ip route flush dev wb4242",
        ] {
            sh(damage);
            assert_eq!(ensure(&netlink, &spec()).await.unwrap(), segment, "{damage}");
            println!("after: {damage}");
            check_all();
        }
    });
}

#[test]
#[ignore = "needs root"]
fn replaces_tunnel_that_cannot_be_changed() {
    on_a_host(async |netlink| {
        let first = ensure(&netlink, &spec()).await.unwrap();
        for wrong in [
            "id 4242 dstport 8472 local 198.18.0.1 dev eth0 ttl 64 nolearning",
            "id 4242 dstport 4789 local 198.18.0.1 dev eth0 ttl 64 learning",
            "id 4242 dstport 4789 local 198.18.0.9 dev eth0 ttl 64 nolearning",
            "id 4243 dstport 4789 local 198.18.0.1 dev eth0 ttl 64 nolearning",
            "id 4242 dstport 4789 local 198.18.0.1 dev cable ttl 64 nolearning",
            "id 4242 dstport 4789 local 198.18.0.1 ttl 64 nolearning",
            "id 4242 dstport 4789 local 198.18.0.1 dev eth0 ttl 1 nolearning",
            "id 4242 dstport 4789 local 198.18.0.1 dev eth0 ttl inherit nolearning",
        ] {
            sh(&format!("ip link delete wx4242; ip link add wx4242 type vxlan {wrong}"));
            let segment = ensure(&netlink, &spec()).await.unwrap();
            assert_eq!(segment.bridge, first.bridge, "{wrong}");
            println!("instead of: {wrong}");
            check_all();
        }
    });
}

#[test]
#[ignore = "needs root"]
fn names_foreign_device_and_does_not_touch_it() {
    on_a_host(async |netlink| {
        for (foreign, name) in [
            ("ip link add wb4242 type veth peer name other", "wb4242"),
            ("ip link add wx4242 type bridge", "wx4242"),
            (
                "ip link add theirs type vxlan id 4242 dstport 4789 local 198.18.0.1 dev eth0",
                "theirs",
            ),
        ] {
            sh(foreign);
            let before = sh(&format!("ip -d link show {name}"));
            let error = ensure(&netlink, &spec()).await.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("remove"), "{error}");
            assert_eq!(sh(&format!("ip -d link show {name}")), before);
            sh(&format!("ip link delete {name}"));
        }
        ensure(&netlink, &spec()).await.unwrap();
        check_all();
    });
}

#[test]
#[ignore = "needs root"]
fn intact_check_detects_damage() {
    on_a_host(async |netlink| {
        for damage in [
            "ip link set wb4242 down",
            "ip link set wx4242 down",
            "ip link set wx4242 nomaster",
            "ip link delete wx4242",
            "ip link delete wb4242",
            "ip link set wb4242 name theirs",
            "ip link set wx4242 name theirs",
        ] {
            let segment = ensure(&netlink, &spec()).await.unwrap();
            assert!(is_intact(&netlink, spec().vni, &segment).await.unwrap());
            sh(damage);
            assert!(!is_intact(&netlink, spec().vni, &segment).await.unwrap(), "{damage}");
            let _ = try_sh("ip link delete theirs");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn removal_takes_both_devices_and_may_be_repeated() {
    on_a_host(async |netlink| {
        ensure(&netlink, &spec()).await.unwrap();
        sh("ip link add wb4243 type bridge");
        for _ in 0..2 {
            remove(&netlink, spec().vni).await.unwrap();
            assert!(!has_link("wb4242") && !has_link("wx4242") && has_link("wb4243"));
        }
    });
}

#[test]
#[ignore = "needs root"]
fn bridge_has_ipv6_address_on_a_host_without_ipv6() {
    on_a_host(async |netlink| {
        sh("for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done");
        ensure(&netlink, &spec()).await.unwrap();
        assert_eq!(ipv6_setting("wb4242/disable_ipv6"), "1", "not needed, not touched");
        ensure(&netlink, &dual_stack()).await.unwrap();
        let shown = sh("ip -o -6 address show dev wb4242");
        assert!(shown.contains("fd09::2/64") && shown.contains("fd09::1/128"), "{shown}");
        assert_eq!(ipv6_setting("eth0/disable_ipv6"), "1", "not weft's");
    });
}

#[test]
#[ignore = "needs root"]
fn host_that_begins_to_forward_ipv6_still_listens_to_its_routers() {
    on_a_host(async |netlink| {
        sh("ip link add deaf type bridge; echo 0 >/proc/sys/net/ipv6/conf/deaf/accept_ra
            ip link add router type bridge; echo 1 >/proc/sys/net/ipv6/conf/router/forwarding");
        ensure(&netlink, &spec()).await.unwrap();
        assert_eq!(
            (&*ipv6_setting("all/forwarding"), &*ipv6_setting("eth0/accept_ra")),
            ("0", "1")
        );
        ensure(&netlink, &dual_stack()).await.unwrap();
        assert_eq!(
            (&*ipv6_setting("all/forwarding"), &*ipv6_setting("eth0/accept_ra")),
            ("1", "2")
        );
        for (device, value, why) in [
            ("deaf", "0", "it never listened"),
            ("router", "1", "it was a router already, and did not listen"),
            ("wb4242", "0", "containers are behind it"),
            ("default", "1", "what comes later has its own administrator"),
        ] {
            assert_eq!(ipv6_setting(&format!("{device}/accept_ra")), value, "{device}: {why}");
        }
    });
}
