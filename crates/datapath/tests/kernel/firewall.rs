//! The firewall table.

use std::time::Instant;

use weft_datapath::attach::{PortSpec, create_port};
use weft_datapath::firewall::{begin, ensure, is_present, remove};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_datapath::segment::{self, SegmentSpec};
use weft_model::network::{Masquerade, Mode};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{MacAddr, Network, NetworkName, NetworkSpec, Vni};

use crate::ground::{container, link, on_a_host, sh, sh_in, spec, try_sh};

fn network(name: &str, vni: u32, subnet: &str, masquerade: Masquerade) -> Network {
    let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    let spec = NetworkSpec {
        mode: Some(Mode::Gateway),
        masquerade: Some(masquerade),
        pools: vec![pool],
        ..NetworkSpec::default()
    };
    spec.to_network(&NetworkName::new(name).unwrap(), Vni::new(vni).unwrap()).unwrap()
}

/// A network without a way out, on the bridge of `spec()`.
fn inner() -> Network {
    let ipv4 = FamilyRecord::new("10.9.0.0/16".parse().unwrap());
    let ipv6 = FamilyRecord::new("fd09::/64".parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ipv6: Some(ipv6), ..PoolRecord::default() };
    let mode = Some(Mode::Internal);
    let spec = NetworkSpec { mode, pools: vec![pool], ..NetworkSpec::default() };
    spec.to_network(&NetworkName::new("inner").unwrap(), Vni::new(4242).unwrap()).unwrap()
}

fn red() -> Network {
    network("red", 4242, "10.9.0.0/16", Masquerade::On)
}

fn blue() -> Network {
    network("blue", 4243, "10.8.0.0/24", Masquerade::Off)
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

#[test]
#[ignore = "needs root"]
fn sets_rules_of_a_network_once() {
    on_a_host(async |_| {
        ensure(&red()).unwrap();
        let once = ruleset();
        for part in [
            "table inet weft",
            "ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16",
            "masquerade fully-random",
            r#"oifname != "wb4242" oifname @bridges drop"#,
        ] {
            assert!(once.contains(part), "{part} is missing in:\n{once}");
        }
        ensure(&red()).unwrap();
        ensure(&red()).unwrap();
        assert_eq!(ruleset(), once);
        assert_eq!(once.matches("table ").count(), 1, "{once}");
    });
}

#[test]
#[ignore = "needs root"]
fn removal_of_a_network_leaves_rules_of_others() {
    on_a_host(async |_| {
        ensure(&red()).unwrap();
        let red_alone = ruleset();
        ensure(&blue()).unwrap();
        let both = ruleset();
        assert!(both.contains("wb4243") && both.contains("wb4242"), "{both}");
        assert_eq!(both.matches("masquerade fully-random").count(), 1, "blue has none:\n{both}");
        remove(&blue()).unwrap();
        assert_eq!(ruleset(), red_alone);
        remove(&blue()).unwrap();
        assert_eq!(ruleset(), red_alone);
        remove(&red()).unwrap();
        let none = ruleset();
        assert!(!none.contains("wb42") && !none.contains("10.9."), "{none}");
    });
}

#[test]
#[ignore = "needs root"]
fn restores_deleted_rules_and_keeps_other_tables() {
    on_a_host(async |_| {
        sh("nft add table inet theirs; nft add chain inet theirs keep");
        let theirs = sh("nft list table inet theirs");
        ensure(&red()).unwrap();
        let good = ruleset();
        for damage in [
            "nft flush chain inet weft isolate-wb4242",
            "nft flush chain inet weft postrouting",
            "nft delete element inet weft bridges '{ wb4242 }'",
            "nft add rule inet weft masquerade-wb4242 accept",
        ] {
            sh(damage);
            assert_ne!(ruleset(), good, "{damage}");
            ensure(&red()).unwrap();
            assert_eq!(ruleset(), good, "{damage}");
        }
        sh("nft delete table inet weft");
        ensure(&red()).unwrap();
        assert_eq!(sh("nft list table inet theirs"), theirs);
        assert!(try_sh("nft list table inet weft").is_ok());
    });
}

#[test]
#[ignore = "needs root"]
fn rules_are_set_while_their_caller_does_other_work() {
    on_a_host(async |netlink| {
        let started = Instant::now();
        let pending = begin(&red()).unwrap();
        let begun = started.elapsed();
        segment::ensure(&netlink, &spec()).await.unwrap();
        let segment = started.elapsed().saturating_sub(begun);
        pending.wait().unwrap();
        let all = started.elapsed();
        println!("begin {begun:.1?}, segment {segment:.1?}, with the rules {all:.1?} in all");
        assert!(is_present(&red()).unwrap());
        // A caller that fails in between leaves neither a process nor harm.
        drop(begin(&blue()).unwrap());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "", "processes are left");
        ensure(&blue()).unwrap();
        assert!(is_present(&red()).unwrap() && is_present(&blue()).unwrap());
    });
}

#[test]
#[ignore = "needs root"]
fn refusal_of_nft_is_told_with_its_words() {
    on_a_host(async |_| {
        // A chain of the name exists, as another kind of chain.
        sh("nft add table inet weft
            nft add chain inet weft forward '{ type filter hook input priority 5; }'");
        let error = ensure(&red()).unwrap_err().to_string();
        assert!(error.starts_with("set firewall rules of network red: "), "{error}");
        assert!(error.contains("Could not process rule"), "{error}");
    });
}

/// A container with these addresses, on a bridge.
async fn plugged(netlink: &Netlink, bridge: &str, host_end: &str, addresses: &[&str]) -> Netns {
    let netns = container();
    let port = PortSpec {
        host_end,
        host_mac: MacAddr::from_seed(host_end),
        bridge: u32::try_from(link(bridge)["ifindex"].as_u64().unwrap()).unwrap(),
        mtu: 1450,
        ifname: "eth0",
        mac: MacAddr::from_seed(&format!("container/{host_end}")),
        netns: Some(&netns),
    };
    create_port(netlink, &port).await.unwrap();
    sh(&format!("ip link set dev {host_end} up"));
    sh_in(&netns, "ip link set eth0 up");
    for address in addresses {
        sh_in(&netns, &format!("ip address add {address} dev eth0 nodad"));
    }
    netns
}

fn pings(from: &Netns, address: &str) -> bool {
    from.run(Entry::NewThread, || try_sh(&format!("busybox ping -c 1 -W 1 {address}")).is_ok())
        .unwrap()
}

#[test]
#[ignore = "needs root"]
fn internal_network_cannot_be_left_or_entered() {
    on_a_host(async |netlink| {
        // A host that routes, as it does for its other networks, and knows the way to the
        // containers.
        let inside = SegmentSpec { node_addresses: vec![], gateways: vec![], ..spec() };
        segment::ensure(&netlink, &inside).await.unwrap();
        sh("ip link add outer type bridge
            ip address add 198.51.100.1/24 dev outer
            ip address add fd51::1/64 dev outer nodad
            ip link set outer up
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            ip route add 10.9.0.0/16 dev wb4242
            ip route add fd09::/64 dev wb4242");
        let outside = plugged(&netlink, "outer", "out", &["198.51.100.2/24", "fd51::2/64"]).await;
        sh_in(&outside, "ip route add default via 198.51.100.1; ip route add default via fd51::1");
        let neighbour = plugged(&netlink, "wb4242", "n", &["10.9.0.6/16", "fd09::6/64"]).await;
        // No interface has these next hops; the bridge's MAC makes the host take the packets.
        let trickster = plugged(&netlink, "wb4242", "t", &["10.9.0.5/16", "fd09::5/64"]).await;
        // A bridge without an address of its own cannot ask for a neighbour.
        for (netns, address, bridge) in
            [(&trickster, "fd09::5", "wb4242"), (&outside, "fd51::2", "outer")]
        {
            let mac = sh_in(netns, "ip -br link show eth0 | awk '{print $3}'");
            sh(&format!("ip neigh add {address} lladdr {} dev {bridge}", mac.trim()));
        }
        let mac = spec().bridge_mac;
        for hop in ["10.9.0.1", "fd09::1"] {
            sh_in(&trickster, &format!("ip neigh add {hop} lladdr {mac} dev eth0"));
            sh_in(&trickster, &format!("ip route add default via {hop}"));
        }
        let paths = [
            (&trickster, "198.51.100.2", "the outside"),
            (&trickster, "fd51::2", "the outside"),
            (&trickster, "198.51.100.1", "an address of the host"),
            (&trickster, "fd51::1", "an address of the host"),
            (&outside, "10.9.0.5", "the container, from outside"),
            (&outside, "fd09::5", "the container, from outside"),
        ];
        for (from, to, what) in paths {
            assert!(pings(from, to), "without rules {to} is reached: {what}");
        }
        ensure(&inner()).unwrap();
        for (from, to, what) in paths {
            assert!(!pings(from, to), "{to} is reached: {what}");
        }
        assert!(pings(&trickster, "10.9.0.6") && pings(&neighbour, "fd09::5"));
        remove(&inner()).unwrap();
        assert!(!ruleset().contains("wb4242"), "{}", ruleset());
        // Another network may get the VNI, and has a way out.
        ensure(&inner()).unwrap();
        ensure(&red()).unwrap();
        assert!(pings(&trickster, "198.51.100.2"));
    });
}
