//! Namespaces to test in, and the tools that look at them.

use std::process::Command;

use serde_json::Value;
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_datapath::segment::{SegmentSpec, Tunnel};
use weft_model::{MacAddr, NetworkName, Vni};

/// The host's address in the underlay.
pub(crate) const VTEP: &str = "198.18.0.1";

/// Runs `test` in a new namespace with an underlay interface `eth0`, on a thread that ends with it.
pub(crate) fn on_a_host(test: impl AsyncFnOnce(Netlink) + Send + 'static) {
    let host = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        sh("ip link set lo up
            ip link add eth0 type veth peer name cable
            ip address add 198.18.0.1/24 dev eth0
            ip link set eth0 up
            ip link set cable up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Netlink::open().unwrap()).await });
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A new namespace for a container. It lives as long as it is open.
pub(crate) fn container() -> Netns {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        sh("ip link set lo up");
        Netns::current().unwrap()
    });
    made.join().unwrap()
}

/// Runs a script in the calling thread's namespace and returns what it prints.
pub(crate) fn sh(script: &str) -> String {
    try_sh(script).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// The same for one that may fail.
pub(crate) fn try_sh(script: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Runs a script in a container's namespace.
pub(crate) fn sh_in(container: &Netns, script: &str) -> String {
    container.run(Entry::NewThread, || sh(script)).unwrap()
}

/// A link as `ip -details -json` shows it.
pub(crate) fn link(name: &str) -> Value {
    let shown: Value = serde_json::from_str(&sh(&format!("ip -d -j link show {name}"))).unwrap();
    shown[0].clone()
}

pub(crate) fn has_link(name: &str) -> bool {
    try_sh(&format!("ip link show {name}")).is_ok()
}

/// A network on this host: bridge wb4242, VXLAN device wx4242.
pub(crate) fn spec() -> SegmentSpec {
    let index = std::fs::read_to_string("/proc/thread-self/net/dev_snmp6/eth0").unwrap();
    let index = index.split_whitespace().nth(1).unwrap().parse().unwrap();
    SegmentSpec {
        network: NetworkName::new("red").unwrap(),
        vni: Vni::new(4242).unwrap(),
        bridge_mac: MacAddr::from_bytes([2, 0x42, 10, 9, 0, 2]),
        mtu: 1450,
        tunnel: Some(Tunnel {
            vtep: VTEP.parse().unwrap(),
            port: 4789,
            underlay: index,
            mac: MacAddr::from_seed("vxlan"),
        }),
        node_addresses: vec!["10.9.0.2/16".parse().unwrap()],
        subnets: vec![],
        gateways: vec!["10.9.0.1".parse().unwrap()],
    }
}
