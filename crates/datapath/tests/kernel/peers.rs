//! The tables of remote addresses.

use std::net::{IpAddr, Ipv4Addr};

use weft_datapath::netlink::Netlink;
use weft_datapath::peers::bridged::{Devices, Entries, apply_change, observe, reconcile};
use weft_datapath::peers::{Endpoint, PeerTable, Report};
use weft_datapath::segment::{self, Segment};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{HostNumber, MacAddr, Network, NetworkName, NetworkSpec, PoolIndex, Vni};

use crate::ground::{on_a_host, sh, spec};

/// A network of these subnets on the devices of `spec()`, in blocks of 2^`bits`.
pub(crate) fn network(ipv4: &str, ipv6: Option<&str>, bits: u8) -> Network {
    let family = |subnet: &str| FamilyRecord::new(subnet.parse().unwrap());
    let pool = PoolRecord {
        ipv4: Some(family(ipv4)),
        ipv6: ipv6.map(family),
        block_bits: Some(bits),
        ..PoolRecord::default()
    };
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("red").unwrap(), Vni::new(4242).unwrap())
        .unwrap()
}

/// A VTEP, from 198.18.0.2 on.
pub(crate) fn vtep(n: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 2)) + n).into()
}

/// The first `count` blocks of pool 0 from block `first` on, each behind a VTEP of its own.
pub(crate) fn blocks(first: u32, count: u32, bits: u8) -> PeerTable {
    let block = |n: u32| format!("0-{}-{bits}", n << bits).parse().unwrap();
    let blocks = (first..first + count).map(|n| (block(n), vtep(n - first))).collect();
    PeerTable { blocks, ..PeerTable::default() }
}

pub(crate) struct Host {
    pub(crate) netlink: Netlink,
    pub(crate) devices: Devices,
    pub(crate) network: Network,
}

impl Host {
    pub(crate) async fn new(netlink: Netlink, network: Network) -> Self {
        let Segment { bridge, vxlan } = segment::ensure(&netlink, &spec()).await.unwrap();
        Self { netlink, devices: Devices { bridge, vxlan: vxlan.unwrap() }, network }
    }

    pub(crate) async fn reconcile(&self, table: &PeerTable) -> Report {
        reconcile(&self.netlink, self.devices, &self.network, table).await.unwrap()
    }

    pub(crate) async fn change(&self, old: &PeerTable, new: &PeerTable) -> Report {
        apply_change(&self.netlink, self.devices, &self.network, old, new).await.unwrap()
    }

    /// Asserts that the kernel has the entries that `table` asks for, and no others.
    pub(crate) async fn check(&self, table: &PeerTable, why: &str) {
        let observed = observe(&self.netlink, self.devices).await.unwrap();
        assert!(observed == Entries::of(&self.network, table), "{why}");
    }
}

pub(crate) fn report(set: usize, removed: usize) -> Report {
    Report { set, removed, failed: 0 }
}

/// Blocks of two in 10.9.0.0/16; the first peer has 10.9.1.0 and 10.9.1.1.
fn pairs() -> Network {
    network("10.9.0.0/16", None, 1)
}

fn peers(count: u32) -> PeerTable {
    blocks(128, count, 1)
}

#[test]
#[ignore = "needs root"]
fn peers_come_and_go_and_right_entries_are_not_touched() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, pairs()).await;
        host.check(&PeerTable::default(), "nothing yet").await;
        assert_eq!(host.reconcile(&peers(5)).await, report(30, 0));
        host.check(&peers(5), "made").await;
        assert_eq!(host.reconcile(&peers(5)).await, Report::default());

        // One of them as the system's tools show it.
        let fdb = sh("bridge fdb show dev wx4242 | grep 02:42:0a:09:01:03 | sort");
        assert!(fdb.contains("master wb4242 static"), "{fdb}");
        assert!(fdb.contains("dst 198.18.0.3 self permanent"), "{fdb}");
        let neighbour = sh("ip neigh show 10.9.1.3");
        assert!(neighbour.contains("dev wb4242 lladdr 02:42:0a:09:01:03 PERMANENT"), "{neighbour}");

        assert_eq!(host.reconcile(&peers(2)).await, report(0, 18));
        host.check(&peers(2), "some removed").await;
        assert_eq!(host.reconcile(&PeerTable::default()).await, report(0, 12));
        host.check(&PeerTable::default(), "all removed").await;
    });
}

#[test]
#[ignore = "needs root"]
fn changes_program_what_a_comparison_would() {
    on_a_host(async |_| {
        let netlink = Netlink::open_offloaded().unwrap();
        let host = Host::new(netlink, network("10.9.0.0/16", Some("fd09::/112"), 2)).await;
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let own = MacAddr::from_bytes([2, 0, 0, 0, 0, 1]);
        let mut old = PeerTable::default();
        let mut step = async |what: &str, change: &dyn Fn(&mut PeerTable), expected: Report| {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(host.change(&old, &new).await, expected, "{what}");
            host.check(&new, what).await;
            assert_eq!(host.reconcile(&new).await, Report::default(), "{what}");
            old = new;
        };
        // A block of four host numbers: four MACs in two tables, eight addresses.
        step("blocks", &|table| *table = blocks(64, 10, 2), report(160, 0)).await;
        let moved = "0-256-2".parse().unwrap();
        let to = vtep(77);
        step("moved", &|table| table.blocks.extend([(moved, to)]), report(4, 0)).await;
        let at = Endpoint::At { mac: own, vtep: vtep(88) };
        let lent = address("10.9.1.1");
        step("lent", &|table| table.endpoints.extend([(lent, at)]), report(3, 0)).await;
        let here = (lent, Endpoint::Here);
        step("came here", &|table| table.endpoints.extend([here]), report(0, 3)).await;
        step(
            "block rule again",
            &|table| table.endpoints.retain(|address, _| *address != lent),
            report(1, 0),
        )
        .await;
        step(
            "block gone",
            &|table| table.blocks.retain(|block, _| block.first().get() != 256),
            report(0, 16),
        )
        .await;
        step("nothing", &|_| {}, Report::default()).await;
        step("all gone", &|table| *table = PeerTable::default(), report(0, 144)).await;
    });
}

#[test]
#[ignore = "needs root"]
fn corrects_removed_and_altered_entries_and_nothing_else() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, pairs()).await;
        let desired = peers(5);
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
            host.check(&desired, &damage).await;
        }
        // The kernel forgets all neighbours with the bridge.
        sh("ip link set wb4242 down; ip link set wb4242 up");
        host.reconcile(&desired).await;
        host.check(&desired, "bridge down and up").await;
    });
}

#[test]
#[ignore = "needs root"]
fn entry_that_the_kernel_refuses_is_counted_and_the_rest_programmed() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, pairs()).await;
        let mut table = peers(300);
        // A bridge refuses entries for group addresses with EINVAL, as VXLAN does for VTEPs of
        // a family that the device has no socket for.
        let mac = MacAddr::from_bytes([2, 0, 0, 0, 0, 9]);
        let at = Endpoint::At { mac, vtep: "fd18::9".parse().unwrap() };
        table.endpoints.insert("10.9.200.1".parse().unwrap(), at);
        let done = host.reconcile(&table).await;
        assert_eq!(done, Report { set: 1802, removed: 0, failed: 1 });
        assert_eq!(host.reconcile(&table).await, Report { set: 0, removed: 0, failed: 1 });
    });
}

#[test]
#[ignore = "needs root"]
fn says_that_a_device_is_gone() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, pairs()).await;
        sh("ip link delete wx4242");
        let (old, new) = (PeerTable::default(), peers(3));
        let error = apply_change(&host.netlink, host.devices, &host.network, &old, &new).await;
        assert!(error.unwrap_err().is_missing());
    });
}

#[test]
#[ignore = "needs root"]
fn entries_that_are_not_for_peers_stay() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, pairs()).await;
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
        assert_eq!(host.reconcile(&peers(5)).await, report(30, 0));
        assert_eq!(host.change(&peers(5), &peers(4)).await, report(0, 6));
        assert_eq!(host.reconcile(&PeerTable::default()).await, report(0, 24));
        assert_eq!(foreign.map(sh), before);
    });
}

#[test]
#[ignore = "needs root"]
fn addresses_of_an_ipv6_network_are_programmed() {
    on_a_host(async |netlink| {
        let host = Host::new(netlink, network("10.9.0.0/16", Some("fd09::/112"), 0)).await;
        let host_number = HostNumber::new(7);
        let addresses = host.network.addresses(PoolIndex::new(0).unwrap(), host_number).unwrap();
        assert_eq!(host.reconcile(&blocks(7, 1, 0)).await, report(4, 0));
        let shown = sh("ip -6 neigh show dev wb4242 | grep PERMANENT");
        let expected = format!("fd09::7 lladdr {} PERMANENT", addresses.mac);
        assert_eq!(shown.trim(), expected);
    });
}
