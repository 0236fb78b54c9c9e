//! The underlay by default route.

use weft_datapath::underlay::{Selector, find};

use crate::ground::{VTEP, on_a_host, sh};

/// A second interface beside `eth0`, with a next hop behind it.
const SECOND: &str = "ip link add eth1 type veth peer name cable1
    ip address add 198.18.1.1/24 dev eth1
    ip link set eth1 up
    ip link set cable1 up";

#[test]
#[ignore = "needs root"]
fn default_route_of_least_metric_leads_to_the_underlay() {
    on_a_host(async |netlink| {
        assert!(find(&netlink, &Selector::DefaultRoute).await.is_err());
        sh(SECOND);
        sh("ip route add default via 198.18.1.254 metric 100
            ip route add default via 198.18.0.254 metric 50");
        assert_eq!(find(&netlink, &Selector::DefaultRoute).await.unwrap().name, "eth0");
    });
}

#[test]
#[ignore = "needs root"]
fn first_next_hop_of_a_multipath_route_leads_to_the_underlay() {
    on_a_host(async |netlink| {
        sh(SECOND);
        sh("ip route add default nexthop via 198.18.0.254 nexthop via 198.18.1.254");
        let found = find(&netlink, &Selector::DefaultRoute).await.unwrap();
        assert_eq!((found.name.as_str(), found.vtep.to_string().as_str()), ("eth0", VTEP));
        sh("ip route replace default nexthop via 198.18.1.254 nexthop via 198.18.0.254");
        assert_eq!(find(&netlink, &Selector::DefaultRoute).await.unwrap().name, "eth1");
        sh("ip route delete default
            ip nexthop add id 1 via 198.18.0.254 dev eth0
            ip nexthop add id 2 via 198.18.1.254 dev eth1
            ip nexthop add id 3 group 1/2
            ip route add default nhid 3");
        assert_eq!(find(&netlink, &Selector::DefaultRoute).await.unwrap().name, "eth0");
    });
}

#[test]
#[ignore = "needs root"]
fn first_next_hop_of_an_ipv6_multipath_route_leads_to_the_underlay() {
    on_a_host(async |netlink| {
        sh(SECOND);
        sh("ip address flush dev eth0 scope global
            ip address add fd18::1/64 dev eth0 nodad
            ip address add fd19::1/64 dev eth1 nodad
            ip route add default nexthop via fd18::ff dev eth0 nexthop via fd19::ff dev eth1");
        let found = find(&netlink, &Selector::DefaultRoute).await.unwrap();
        assert_eq!((found.name.as_str(), found.vtep.to_string().as_str()), ("eth0", "fd18::1"));
    });
}
