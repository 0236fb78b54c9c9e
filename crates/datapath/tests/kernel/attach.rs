//! A container's veth.

use std::time::{Duration, Instant};

use weft_datapath::DatapathError;
use weft_datapath::attach::{
    Expected, Hairpin, InterfaceSpec, PortSecurity, PortSpec, Route, check_interface, check_port,
    configure_interface, create_port, delete_port, list_ports, secure_port,
};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_datapath::segment;
use weft_model::MacAddr;

use crate::ground::{container, has_link, link, on_a_host, sh, sh_in, spec, try_sh};

const HOST_END: &str = "wv0123456789abc";
const MAC: MacAddr = MacAddr::from_bytes([2, 0x42, 10, 9, 0, 5]);

fn port(bridge: u32, netns: &Netns) -> PortSpec<'_> {
    PortSpec {
        host_end: HOST_END,
        host_mac: MacAddr::from_seed(HOST_END),
        bridge,
        mtu: 1450,
        ifname: "eth0",
        mac: MAC,
        netns: Some(netns),
    }
}

/// All of an attachment, as ADD does it.
async fn attach(netlink: &Netlink, bridge: u32, netns: &Netns) -> Result<(), DatapathError> {
    let port = create_port(netlink, &port(bridge, netns)).await?;
    let inside = Netlink::open_in(netns, Entry::CallingThread)?;
    let interface = InterfaceSpec {
        index: port.interface,
        ifname: "eth0",
        netns,
        addresses: &["10.9.0.5/16".parse().unwrap(), "fd09::5/64".parse().unwrap()],
        routes: &[
            Route::new("0.0.0.0/0".parse().unwrap(), Some("10.9.0.1".parse().unwrap())),
            Route::new("192.168.7.0/24".parse().unwrap(), Some("10.9.0.2".parse().unwrap())),
            Route::new("::/0".parse().unwrap(), Some("fd09::1".parse().unwrap())),
        ],
    };
    let security = PortSecurity {
        index: port.host_end,
        name: HOST_END,
        alias: "weft:red/c1/eth0",
        bridge,
        mac: MAC,
        takes_from: &[],
        hairpin: Hairpin::Off,
    };
    secure_port(netlink, &security).await?;
    configure_interface(&inside, &interface).await
}

async fn bridge(netlink: &Netlink) -> u32 {
    segment::ensure(netlink, &spec()).await.unwrap().bridge
}

async fn differences(netns: &Netns) -> Vec<String> {
    let expected = Expected {
        ifname: "eth0",
        mac: Some(MAC),
        addresses: &["10.9.0.5/16".parse().unwrap(), "fd09::5/64".parse().unwrap()],
        routes: &[
            ("0.0.0.0/0".parse().unwrap(), Some("10.9.0.1".parse().unwrap())),
            ("192.168.7.0/24".parse().unwrap(), None),
        ],
        shares_routes: false,
    };
    check_interface(&Netlink::open_in(netns, Entry::NewThread).unwrap(), &expected).await.unwrap()
}

fn reaches_its_host(netns: &Netns) -> bool {
    netns.run(Entry::NewThread, || try_sh("busybox ping -c 3 -W 1 10.9.0.1").is_ok()).unwrap()
}

#[test]
#[ignore = "needs root"]
fn container_has_address_routes_mtu_and_mac_and_reaches_its_host() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        attach(&netlink, bridge, &c1).await.unwrap();
        let shown =
            sh_in(&c1, "ip link show eth0; ip -o address show dev eth0; ip route; ip -6 route");
        for part in [
            "mtu 1450",
            "02:42:0a:09:00:05",
            "inet 10.9.0.5/16 brd 10.9.255.255",
            "inet6 fd09::5/64",
            "default via 10.9.0.1 dev eth0",
            "192.168.7.0/24 via 10.9.0.2 dev eth0",
            "10.9.0.0/16 dev eth0",
            "default via fd09::1 dev eth0",
        ] {
            assert!(shown.contains(part), "{part} is missing in:\n{shown}");
        }
        // At once: an IPv6 address that is still being probed cannot be used.
        let tentative = sh_in(&c1, "ip -6 address show dev eth0 scope global tentative");
        assert_eq!(tentative, "");
        let host_end = link(HOST_END);
        assert_eq!(
            (host_end["mtu"].as_u64(), host_end["master"].as_str()),
            (Some(1450), Some("wb4242"))
        );
        assert_eq!(host_end["ifalias"], "weft:red/c1/eth0");
        assert_eq!(host_end["linkinfo"]["info_slave_data"]["learning"], false);
        assert_eq!(host_end["linkinfo"]["info_slave_data"]["locked"], true);
        assert!(reaches_its_host(&c1));
        assert_eq!(differences(&c1).await, [""; 0]);
        assert_eq!(check_port(&netlink, HOST_END, bridge).await.unwrap(), [""; 0]);
        let ports = [(HOST_END.to_owned(), "weft:red/c1/eth0".to_owned())];
        assert_eq!(list_ports(&netlink, bridge).await.unwrap(), ports);
    });
}

#[test]
#[ignore = "needs root"]
fn port_drops_frames_of_a_foreign_mac() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        attach(&netlink, bridge, &c1).await.unwrap();
        assert!(reaches_its_host(&c1));
        sh_in(&c1, "ip link set eth0 address 02:42:0a:09:00:63");
        assert!(!reaches_its_host(&c1));
        sh_in(&c1, "ip link set eth0 address 02:42:0a:09:00:05; ip neigh flush dev eth0");
        sh_in(&c1, "ip route replace default via 10.9.0.1");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(reaches_its_host(&c1));
    });
}

#[test]
#[ignore = "needs root"]
fn failed_creation_leaves_nothing_on_either_side() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        // The name in the container is taken.
        sh_in(&c1, "ip link add eth0 type bridge");
        let error = create_port(&netlink, &port(bridge, &c1)).await.unwrap_err();
        assert!(error.is_exists() && error.to_string().contains("eth0"), "{error}");
        assert!(!has_link(HOST_END));
        assert_eq!(sh_in(&c1, "ip -o link show | wc -l"), "2\n");
        sh_in(&c1, "ip link delete eth0");

        // The name on the host is taken.
        sh(&format!("ip link add {HOST_END} type bridge"));
        let error = create_port(&netlink, &port(bridge, &c1)).await.unwrap_err();
        assert!(error.is_exists() && error.to_string().contains(HOST_END), "{error}");
        assert_eq!(link(HOST_END)["linkinfo"]["info_kind"], "bridge");
        assert_eq!(sh_in(&c1, "ip -o link show | wc -l"), "1\n");
        sh(&format!("ip link delete {HOST_END}"));

        // The bridge has gone.
        assert!(create_port(&netlink, &port(99_999, &c1)).await.is_err());
        assert!(!has_link(HOST_END));
        assert_eq!(sh_in(&c1, "ip -o link show | wc -l"), "1\n");

        attach(&netlink, bridge, &c1).await.unwrap();
        assert!(reaches_its_host(&c1));
    });
}

#[test]
#[ignore = "needs root"]
fn check_reports_every_difference() {
    on_a_host(async |netlink| {
        let bridge = bridge(&netlink).await;
        for (damage, told) in [
            ("ip address delete 10.9.0.5/16 dev eth0", "lacks address 10.9.0.5/16"),
            ("ip address delete fd09::5/64 dev eth0", "lacks address fd09::5/64"),
            ("ip route delete default", "lacks the route to 0.0.0.0/0"),
            ("ip route replace default via 10.9.0.9", "lacks the route to 0.0.0.0/0"),
            ("ip route delete 192.168.7.0/24", "lacks the route to 192.168.7.0/24"),
            ("ip link set eth0 address 02:00:00:00:00:01", "not 02:42:0a:09:00:05"),
            ("ip link set eth0 down", "is down"),
            ("ip link delete eth0", "eth0 is missing"),
        ] {
            let c1 = container();
            attach(&netlink, bridge, &c1).await.unwrap();
            sh_in(&c1, damage);
            let found = differences(&c1).await;
            assert!(found.iter().any(|text| text.contains(told)), "{damage}: {found:?}");
            delete_port(&netlink, HOST_END).await.unwrap();
        }
        let c1 = container();
        attach(&netlink, bridge, &c1).await.unwrap();
        sh(&format!("ip link set {HOST_END} nomaster down"));
        assert_eq!(check_port(&netlink, HOST_END, bridge).await.unwrap().len(), 2);
        sh(&format!("ip link delete {HOST_END}"));
        let found = check_port(&netlink, HOST_END, bridge).await.unwrap();
        assert!(found[0].contains("missing"), "{found:?}");
    });
}

#[test]
#[ignore = "needs root"]
fn deletion_takes_both_ends_and_may_be_repeated() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        attach(&netlink, bridge, &c1).await.unwrap();
        assert!(delete_port(&netlink, HOST_END).await.unwrap());
        assert!(!delete_port(&netlink, HOST_END).await.unwrap());
        assert!(!has_link(HOST_END));
        assert_eq!(sh_in(&c1, "ip -o link show | wc -l"), "1\n");
        assert_eq!(list_ports(&netlink, bridge).await.unwrap(), []);
    });
}

#[test]
#[ignore = "needs root"]
fn check_finds_next_hop_of_a_multipath_route() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        attach(&netlink, bridge, &c1).await.unwrap();
        sh_in(
            &c1,
            "ip link add eth1 type bridge
            ip address add 198.18.9.1/24 dev eth1
            ip link set eth1 up
            ip route replace default nexthop via 198.18.9.2 nexthop via 10.9.0.1",
        );
        assert_eq!(differences(&c1).await, [""; 0]);
        sh_in(&c1, "ip route replace default nexthop via 198.18.9.2 nexthop via 198.18.9.3");
        assert_eq!(differences(&c1).await, ["interface eth0 lacks the route to 0.0.0.0/0"]);
    });
}

#[test]
#[ignore = "needs root"]
fn check_finds_routes_of_other_tables_and_of_interfaces_that_may_have_them() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        attach(&netlink, bridge, &c1).await.unwrap();
        // As the plugin sbr does it.
        sh_in(
            &c1,
            "ip route add default via 10.9.0.1 dev eth0 table 100
            ip route delete default via 10.9.0.1
            ip link add eth1 type bridge
            ip address add 198.18.9.1/24 dev eth1
            ip link set eth1 up
            ip route add 198.51.100.0/24 via 198.18.9.2 dev eth1",
        );
        assert_eq!(differences(&c1).await, [""; 0]);
        let inside = Netlink::open_in(&c1, Entry::NewThread).unwrap();
        let lacking = async |shares_routes| {
            let routes = &[("198.51.100.0/24".parse().unwrap(), None)];
            let (ifname, mac, addresses) = ("eth0", Some(MAC), &[][..]);
            let expected = Expected { ifname, mac, addresses, routes, shares_routes };
            check_interface(&inside, &expected).await.unwrap()
        };
        assert_eq!(lacking(false).await.len(), 1);
        assert_eq!(lacking(true).await, [""; 0]);
    });
}

#[test]
#[ignore = "needs root"]
fn enables_ipv6_for_an_interface_with_an_ipv6_address() {
    on_a_host(async |netlink| {
        let (bridge, c1) = (bridge(&netlink).await, container());
        sh_in(
            &c1,
            "for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done",
        );
        attach(&netlink, bridge, &c1).await.unwrap();
        assert_eq!(differences(&c1).await, [""; 0]);
        let routes = sh_in(&c1, "ip -6 route");
        assert!(routes.contains("default via fd09::1 dev eth0"), "{routes}");
        assert_eq!(sh_in(&c1, "cat /proc/sys/net/ipv6/conf/lo/disable_ipv6"), "1\n");
    });
}

#[test]
#[ignore = "needs root"]
fn attachment_can_be_repeated_in_new_containers() {
    on_a_host(async |netlink| {
        let bridge = bridge(&netlink).await;
        let mut times = vec![];
        for _ in 0..30 {
            let c1 = container();
            let started = Instant::now();
            attach(&netlink, bridge, &c1).await.unwrap();
            times.push(started.elapsed());
            assert!(delete_port(&netlink, HOST_END).await.unwrap());
        }
        times.sort_unstable();
        println!("attachment: median {:?}, least {:?}", times[times.len() / 2], times[0]);
    });
}
