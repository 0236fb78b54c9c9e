//! The tables of remote addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use weft_datapath::netlink::Netlink;
use weft_datapath::peers::{Report, Tables, observe, reconcile};
use weft_datapath::segment::{self, Segment};
use weft_model::MacAddr;

use crate::ground::{on_a_host, sh, spec};

/// `count` remote containers, two on each node.
fn peers(count: u32) -> Tables {
    let mut tables = Tables::default();
    for n in 0..count {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 1, 0)) + n);
        let vtep = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 2)) + n / 2);
        tables.insert(address.into(), MacAddr::for_ipv4(address), vtep.into());
    }
    tables
}

struct Host {
    netlink: Netlink,
    bridge: u32,
    vxlan: u32,
}

impl Host {
    async fn new(netlink: Netlink) -> Self {
        let Segment { bridge, vxlan } = segment::ensure(&netlink, &spec()).await.unwrap();
        Self { netlink, bridge, vxlan: vxlan.unwrap() }
    }

    async fn reconcile(&self, desired: &Tables) -> Report {
        reconcile(&self.netlink, self.bridge, self.vxlan, desired).await.unwrap()
    }

    async fn observe(&self) -> Tables {
        observe(&self.netlink, self.bridge, self.vxlan).await.unwrap()
    }
}

fn report(set: usize, removed: usize) -> Report {
    Report { set, removed, failed: 0 }
}

#[test]
#[ignore = "needs root"]
fn peers_come_and_go_and_what_is_right_is_not_touched() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        assert_eq!(host.observe().await, Tables::default());
        let desired = peers(10);
        assert_eq!(host.reconcile(&desired).await, report(30, 0));
        assert_eq!(host.observe().await, desired);
        assert_eq!(host.reconcile(&desired).await, Report::default());

        // What the tools of the system show, for one of them.
        let fdb = sh("bridge fdb show dev wx4242 | grep 02:42:0a:09:01:03 | sort");
        assert!(fdb.contains("master wb4242 static"), "{fdb}");
        assert!(fdb.contains("dst 198.18.0.3 self permanent"), "{fdb}");
        let neighbour = sh("ip neigh show 10.9.1.3");
        assert!(neighbour.contains("dev wb4242 lladdr 02:42:0a:09:01:03 PERMANENT"), "{neighbour}");

        assert_eq!(host.reconcile(&peers(4)).await, report(0, 18));
        assert_eq!(host.observe().await, peers(4));
        assert_eq!(host.reconcile(&Tables::default()).await, report(0, 12));
        assert_eq!(host.observe().await, Tables::default());
    });
}

#[test]
#[ignore = "needs root"]
fn an_address_of_each_family_shares_the_containers_mac() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        let mut desired = peers(1);
        let (mac, vtep) = desired.vxlan.iter().next().map(|(m, v)| (*m, *v)).unwrap();
        desired.insert("fd09::7".parse().unwrap(), mac, vtep);
        assert_eq!(host.reconcile(&desired).await, report(4, 0));
        assert_eq!(host.observe().await, desired);
    });
}

#[test]
#[ignore = "needs root"]
fn what_somebody_removed_or_altered_is_put_right_and_nothing_else() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        let desired = peers(10);
        host.reconcile(&desired).await;
        let (mac, at) = ("02:42:0a:09:01:03", "198.18.0.3");
        for (damage, expected) in [
            (format!("bridge fdb del {mac} dev wx4242 dst {at} self"), report(1, 0)),
            (format!("bridge fdb del {mac} dev wx4242 master"), report(1, 0)),
            (format!("bridge fdb replace {mac} dev wx4242 dst 198.18.0.99 self"), report(1, 0)),
            ("ip neigh del 10.9.1.3 dev wb4242".to_owned(), report(1, 0)),
            (
                "ip neigh replace 10.9.1.3 dev wb4242 lladdr 02:00:00:00:00:01".to_owned(),
                report(1, 0),
            ),
            ("ip neigh add 10.9.7.7 dev wb4242 lladdr 02:00:00:00:00:01".to_owned(), report(0, 1)),
        ] {
            sh(&damage);
            assert_eq!(host.reconcile(&desired).await, expected, "{damage}");
            assert_eq!(host.observe().await, desired, "{damage}");
        }
        // The kernel forgets all neighbours with the bridge.
        sh("ip link set wb4242 down; ip link set wb4242 up");
        host.reconcile(&desired).await;
        assert_eq!(host.observe().await, desired);
    });
}

#[test]
#[ignore = "needs root"]
fn a_container_that_moves_is_at_its_new_node_only() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        let mut desired = peers(1);
        host.reconcile(&desired).await;
        let vtep: IpAddr = "198.18.0.77".parse().unwrap();
        for to in desired.vxlan.values_mut() {
            *to = vtep;
        }
        assert_eq!(host.reconcile(&desired).await, report(1, 0));
        let entries = sh("bridge fdb show dev wx4242 | grep 'dst '");
        assert!(entries.lines().count() == 1 && entries.contains("198.18.0.77"), "{entries}");
    });
}

#[test]
#[ignore = "needs root"]
fn entries_that_are_not_for_peers_are_left_alone() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        // A local container's MAC, a flood entry, a neighbour that the kernel found by itself, and
        // neighbours of another interface.
        sh("ip link add wv1 type veth peer name c1
            ip link set wv1 master wb4242 up
            ip link set c1 up
            bridge fdb add 02:42:0a:09:00:05 dev wv1 master static
            bridge fdb append 00:00:00:00:00:00 dev wx4242 dst 198.18.0.200 self
            ip neigh add 10.9.0.5 dev wb4242 lladdr 02:42:0a:09:00:05 nud stale
            ip neigh add 198.18.0.3 dev eth0 lladdr 02:00:00:00:00:03
            bridge fdb add 02:00:00:00:00:03 dev eth0 self");
        let foreign = [
            "bridge fdb show dev wv1 | grep '02:42:0a:09:00:05 .*static'",
            "bridge fdb show dev wx4242 | grep '00:00:00:00:00:00 dst 198.18.0.200'",
            "ip neigh show 10.9.0.5 dev wb4242 | grep STALE",
            "ip neigh show 198.18.0.3 dev eth0 | grep PERMANENT",
            "bridge fdb show dev eth0 | grep 02:00:00:00:00:03",
        ];
        let before = foreign.map(sh);
        assert_eq!(host.reconcile(&peers(5)).await, report(15, 0));
        assert_eq!(host.reconcile(&Tables::default()).await, report(0, 15));
        assert_eq!(foreign.map(sh), before);
    });
}

#[test]
#[ignore = "needs root"]
fn five_hundred_peers_are_made_in_one_pass() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink).await;
        let desired = peers(1000);
        for (what, desired, expected) in [
            ("made", &desired, report(3000, 0)),
            ("compared", &desired, Report::default()),
            ("removed", &Tables::default(), report(0, 3000)),
        ] {
            let started = Instant::now();
            assert_eq!(host.reconcile(desired).await, expected);
            let took = started.elapsed();
            println!("500 peers with two containers each, {what} in {} ms", took.as_millis());
            assert!(took.as_secs() < 5, "{what}: {took:?}");
        }
    });
}
