//! The bridge's entries of containers' MACs.

use weft_datapath::DatapathError;
use weft_datapath::attach::entry::{self, Entry};
use weft_datapath::attach::{
    Hairpin, PortSecurity, PortSpec, create_port, delete_port, secure_port,
};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::Netns;
use weft_datapath::{ports, segment};
use weft_model::MacAddr;

use crate::ground::{container, on_a_host, sh, sh_in, spec};

const MAC: MacAddr = MacAddr::from_bytes([2, 0x42, 10, 9, 0, 5]);

/// Makes `host_end` with a container's end that has `mac`, and secures it.
async fn attach(
    netlink: &Netlink,
    segment: segment::Segment,
    (host_end, netns): (&str, &Netns),
    mac: MacAddr,
    takes_from: &[u32],
) -> Result<u32, DatapathError> {
    let spec = PortSpec {
        host_end,
        host_mac: MacAddr::from_seed(host_end),
        bridge: segment.bridge,
        mtu: 1450,
        ifname: "eth0",
        mac,
        netns: Some(netns),
    };
    let index = create_port(netlink, &spec).await?.host_end;
    let security = PortSecurity {
        index,
        name: host_end,
        alias: &format!("weft:{host_end}'s on network red"),
        bridge: segment.bridge,
        mac,
        takes_from,
        hairpin: Hairpin::Off,
    };
    secure_port(netlink, &security).await?;
    Ok(index)
}

/// The device that has the entry of `mac` according to `bridge fdb`.
fn holder(mac: MacAddr) -> String {
    sh(&format!("bridge fdb show br wb4242 | awk '$1 == \"{mac}\" && !/vlan/ {{print $3}}'"))
        .trim()
        .to_owned()
}

#[test]
#[ignore = "needs root"]
fn refuses_a_mac_that_the_bridge_or_another_port_has() {
    on_a_host(async |netlink| {
        let segment = segment::ensure(&netlink, &spec()).await.unwrap();
        let (c1, c2) = (container(), container());
        attach(&netlink, segment, ("wv1", &c1), MAC, &[]).await.unwrap();
        let refusal = async |mac| {
            let error = attach(&netlink, segment, ("wv2", &c2), mac, &[]).await.unwrap_err();
            assert!(matches!(error, DatapathError::MacHeld { .. }), "{error}");
            delete_port(&netlink, "wv2").await.unwrap();
            error.to_string()
        };
        let error = refusal(MAC).await;
        assert!(error.contains("wv1's on network red (port wv1) has this MAC"), "{error}");
        // The failed port took nothing with it.
        assert_eq!(holder(MAC), "wv1");
        let error = refusal(spec().bridge_mac).await;
        assert!(error.contains("bridge wb4242 itself"), "{error}");
        assert_eq!(holder(spec().bridge_mac), "wb4242");
        let error = refusal(MacAddr::from_seed("wv1")).await;
        assert!(error.contains("(port wv1)"), "{error}");
        let vxlan = segment.vxlan.unwrap();
        sh("bridge fdb add 02:00:00:00:00:07 dev wx4242 master static");
        let error = refusal("02:00:00:00:00:07".parse().unwrap()).await;
        assert!(error.contains("another node (port wx4242)"), "{error}");
        // An address that has moved here.
        let mac = "02:00:00:00:00:07".parse().unwrap();
        let index = attach(&netlink, segment, ("wv2", &c2), mac, &[vxlan]).await.unwrap();
        let entries = entry::entries(&netlink, segment.bridge, &[MAC, mac]).await.unwrap();
        assert_eq!(entries[1], Some(Entry { port: index, is_fixed: true }));
        assert!(entries[0].is_some_and(|entry| entry.port != index));
    });
}

#[test]
#[ignore = "needs root"]
fn finds_ports_that_are_closed_to_their_interfaces() {
    on_a_host(async |netlink| {
        let segment = segment::ensure(&netlink, &spec()).await.unwrap();
        let (c1, c2) = (container(), container());
        attach(&netlink, segment, ("wv1", &c1), MAC, &[]).await.unwrap();
        let other = "02:42:0a:09:00:06".parse().unwrap();
        attach(&netlink, segment, ("wv2", &c2), other, &[]).await.unwrap();
        let closed = async || {
            let links = netlink.links().await.unwrap();
            let veths = links.into_iter().filter(|link| link.name.starts_with("wv"));
            let veths: Vec<_> = veths.collect();
            ports::closed(&netlink, segment.bridge, &veths).await.unwrap()
        };
        let shown = |closed: &[ports::ClosedPort]| closed[0].to_string();
        assert_eq!(closed().await, []);

        sh(&format!("bridge fdb replace {MAC} dev wv2 master static sticky"));
        assert_eq!(
            shown(&closed().await),
            format!(
                "port wv1 lets no frame through, and the interface has {MAC}, which is that of \
                 wv2's on network red (port wv2)"
            )
        );
        sh(&format!("bridge fdb del {MAC} dev wv2 master"));
        let lost = closed().await;
        assert_eq!((lost.len(), &lost[0].holder), (1, &None));
        ports::open(&netlink, &lost[0].port, segment.bridge, MAC, &[]).await.unwrap();
        assert_eq!(closed().await, []);

        sh_in(&c1, "ip link set eth0 address 02:00:00:00:00:01");
        let other = closed().await;
        assert_eq!(other[0].lets_through, [MAC]);
        assert_eq!(
            shown(&other),
            format!("port wv1 lets through {MAC} only, and the interface has 02:00:00:00:00:01")
        );
    });
}

#[test]
#[ignore = "needs root"]
fn gives_the_bridge_its_own_mac_back() {
    on_a_host(async |netlink| {
        let segment = segment::ensure(&netlink, &spec()).await.unwrap();
        let (c1, mac) = (container(), spec().bridge_mac);
        attach(&netlink, segment, ("wv1", &c1), MAC, &[]).await.unwrap();
        sh_in(&c1, "ip address add 10.9.0.5/16 dev eth0; ip link set eth0 up");
        let ping = "busybox ping -c 2 -W 1 10.9.0.2";
        sh_in(&c1, ping);
        sh(&format!("bridge fdb replace {mac} dev wv1 master static"));
        assert_eq!(holder(mac), "wv1");
        entry::restore_own(&netlink, segment.bridge, mac).await.unwrap();
        assert_eq!(holder(mac), "wb4242");
        sh_in(&c1, ping);
    });
}
