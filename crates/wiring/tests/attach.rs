//! Containers connected to a network and taken off again, on a host that is a network namespace.
//!
//! These tests need root and are ignored unless asked for (`cargo test -- --ignored`). The kernel
//! is looked at with the system's own tools, not with the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::process::Command;

use tempfile::TempDir;
use weft_cluster::{Cluster, NodeConfig};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::Netns;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Attachment, ContainerId, IfName, NetworkSpec, device};
use weft_wiring::attach::{AttachRequest, ContainerEnd, Entry, Hairpin, Inside, Route};
use weft_wiring::attachment_check::Expected;
use weft_wiring::detach::detach;
use weft_wiring::segment_state::SegmentState;
use weft_wiring::{Host, OwnAddress, WiringError};

/// A single node with network `red` on it.
struct Ground {
    host: Host,
    ready: SegmentState,
    _dir: TempDir,
}

/// Runs `test` in a new network namespace, on a thread that ends with it.
fn on_a_host(test: impl AsyncFnOnce(Ground) + Send + 'static) {
    let host = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(ground().await).await });
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn ground() -> Ground {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("weft.toml");
    let root = dir.path().display();
    let config = format!(
        "node = \"n\"\ndata_dir = \"{root}/data\"\n[store]\ntype = \"local\"\n\
         address = \"{root}/store\"\n"
    );
    std::fs::write(&path, config).unwrap();
    let config = NodeConfig::load(Some(&path), |_| None).unwrap();
    let cluster = Cluster::connect(&config, |_| None).unwrap();
    let host = Host::new(config, cluster, Netlink::open().unwrap());
    let ipv4 = FamilyRecord::new("10.9.0.0/24".parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    let spec = NetworkSpec { pools: vec![pool], ..NetworkSpec::default() };
    let ready = host.ready(&"red".parse().unwrap(), &spec, OwnAddress::Reserved).await.unwrap();
    Ground { host, ready, _dir: dir }
}

/// A new namespace for a container. It lives as long as it is open.
fn container() -> Inside {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        sh("ip link set lo up");
        Netns::current().unwrap()
    });
    Inside::enter(made.join().unwrap(), Entry::NewThread).unwrap()
}

fn try_sh(script: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn sh(script: &str) -> String {
    try_sh(script).unwrap_or_else(|error| panic!("{script}: {error}"))
}

fn sh_in(container: &Inside, script: &str) -> String {
    container.netns().run(Entry::NewThread, || sh(script)).unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        network: "red".parse().unwrap(),
        container_id: ContainerId::new("c1").unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

/// Reaches the host. The kernel has the port forward a moment after the interface is up: the first
/// packet may come too early on a busy machine.
const PING: &str = "busybox ping -c 3 -W 1 10.9.0.2";

const MAC: &str = "02:42:0a:09:00:05";

impl Ground {
    async fn attach(
        &self,
        attachment: &Attachment,
        container_end: ContainerEnd<'_>,
        routes: &[Route],
    ) -> Result<String, WiringError> {
        let request = AttachRequest {
            attachment,
            own_address: OwnAddress::Reserved,
            hairpin: Hairpin::Off,
            mac: None,
            container_end,
            addresses: &["10.9.0.5/24".parse().unwrap()],
            routes,
        };
        let attached = self.host.attach(self.ready.clone(), &request).await?;
        assert_eq!(attached.mac.to_string(), MAC);
        Ok(attached.host_end)
    }
}

fn route(dst: &str, gw: &str) -> Route {
    Route::new(dst.parse().unwrap(), Some(gw.parse().unwrap()))
}

#[test]
#[ignore = "needs root"]
fn connects_a_container_and_takes_it_off_again() {
    on_a_host(async |ground| {
        let (c1, attachment) = (container(), attachment());
        let routes = [route("0.0.0.0/0", "10.9.0.1")];
        let end = ContainerEnd::Inside(&c1);
        let host_end = ground.attach(&attachment, end, &routes).await.unwrap();
        assert_eq!(host_end, device::host_end(&attachment));
        let shown = sh_in(&c1, "ip -o link show eth0; ip -o address show eth0; ip route");
        for part in [MAC, "inet 10.9.0.5/24", "default via 10.9.0.1"] {
            assert!(shown.contains(part), "{part} is missing in:\n{shown}");
        }
        sh_in(&c1, PING);
        let expected = Expected {
            ifname: "eth0",
            mac: MAC.parse().ok(),
            addresses: &["10.9.0.5/24".parse().unwrap()],
            routes: &[("0.0.0.0/0".parse().unwrap(), None)],
        };
        let differences =
            async || ground.host.differences(&attachment, &c1, &expected).await.unwrap();
        assert_eq!(differences().await, [""; 0]);
        sh(&format!("ip link set {host_end} down"));
        assert_eq!(differences().await, [format!("host end {host_end} is down")]);
        assert!(detach(ground.host.netlink(), &attachment).await.unwrap());
        assert!(!detach(ground.host.netlink(), &attachment).await.unwrap());
        assert!(!ground.host.is_attached(&attachment).await);
        assert!(sh_in(&c1, "ip -o link show | wc -l").starts_with('1'));
    });
}

#[test]
#[ignore = "needs root"]
fn leaves_the_container_end_on_the_host_for_another_program_to_move() {
    on_a_host(async |ground| {
        let (c1, attachment) = (container(), attachment());
        let name = IfName::new("weft-c1").unwrap();
        let end = ContainerEnd::OnHost(&name);
        let host_end = ground.attach(&attachment, end, &[]).await.unwrap();
        let shown = sh("ip -o link show weft-c1");
        assert!(shown.contains(MAC) && shown.contains("state DOWN"), "{shown}");
        // The port is protected before there is a carrier.
        let port = sh(&format!("ip -d -o link show {host_end}; bridge fdb show dev {host_end}"));
        for part in ["NO-CARRIER", "locked on", "learning off", MAC, "sticky"] {
            assert!(port.contains(part), "{part} is missing in:\n{port}");
        }
        let pid = std::process::id();
        let thread = nix::unistd::gettid();
        let netns = format!("/proc/{pid}/task/{thread}/ns/net");
        sh_in(
            &c1,
            &format!(
                "nsenter --net={netns} ip link set weft-c1 netns $$ name eth0
                ip address add 10.9.0.5/24 dev eth0
                ip link set eth0 up
                {PING}"
            ),
        );
        assert!(detach(ground.host.netlink(), &attachment).await.unwrap());
        assert!(sh_in(&c1, "ip -o link show | wc -l").starts_with('1'));
    });
}

#[test]
#[ignore = "needs root"]
fn a_failed_attempt_leaves_nothing() {
    on_a_host(async |ground| {
        let (c1, attachment) = (container(), attachment());
        let routes = [route("192.168.0.0/16", "172.16.0.1")];
        let end = ContainerEnd::Inside(&c1);
        let error = ground.attach(&attachment, end, &routes).await.unwrap_err().to_string();
        assert!(error.contains("192.168.0.0/16"), "{error}");
        assert!(!ground.host.is_attached(&attachment).await);
        assert!(sh_in(&c1, "ip -o link show | wc -l").starts_with('1'));
        ground.attach(&attachment, end, &[]).await.unwrap();
    });
}

#[test]
#[ignore = "needs root"]
fn a_second_attempt_is_refused_and_leaves_the_first_connected() {
    on_a_host(async |ground| {
        let (c1, attachment) = (container(), attachment());
        let end = ContainerEnd::Inside(&c1);
        ground.attach(&attachment, end, &[]).await.unwrap();
        let error = ground.attach(&attachment, end, &[]).await.unwrap_err();
        assert!(matches!(error, WiringError::InterfaceExists { .. }), "{error}");
        assert!(ground.host.is_attached(&attachment).await);
        sh_in(&c1, PING);
    });
}

#[test]
#[ignore = "needs root"]
fn makes_a_bridge_again_that_has_gone_since_it_was_looked_at() {
    on_a_host(async |ground| {
        let (c1, attachment) = (container(), attachment());
        let bridge = device::bridge(ground.ready.network.vni());
        sh(&format!("ip link delete {bridge}"));
        ground.attach(&attachment, ContainerEnd::Inside(&c1), &[]).await.unwrap();
        sh_in(&c1, PING);
    });
}
