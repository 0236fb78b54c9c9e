//! Deletion of a veth without the kernel's wait for its readers.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_datapath::attach::{Port, PortSpec, create_port, delete_port};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_datapath::segment;
use weft_model::MacAddr;

use crate::ground::{container, on_a_host, sh, sh_in, spec};

async fn create(netlink: &Netlink, bridge: u32, name: &str, netns: &Netns) -> Port {
    let port = PortSpec {
        host_end: name,
        host_mac: MacAddr::from_seed(name),
        bridge,
        mtu: 1450,
        ifname: "eth0",
        mac: MacAddr::from_seed("container"),
        netns: Some(netns),
    };
    create_port(netlink, &port).await.unwrap()
}

/// Asserts that both ends are gone, and that the name of each is free.
async fn check_gone(netlink: &Netlink, inside: &Netlink, name: &str) {
    assert_eq!(netlink.link(name).await.unwrap(), None);
    assert_eq!(inside.link("eth0").await.unwrap(), None);
}

fn figures(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("median {:?}, least {:?}", times[times.len() / 2], times[0])
}

#[test]
#[ignore = "needs root"]
fn both_ends_are_gone_and_the_name_is_free_a_hundred_times() {
    on_a_host(async |netlink| {
        let bridge = segment::ensure(&netlink, &spec()).await.unwrap().bridge;
        let c1 = container();
        let inside = Netlink::open_in(&c1, Entry::NewThread).unwrap();
        let (mut early, mut blocking) = (vec![], vec![]);
        for _ in 0..100 {
            let port = create(&netlink, bridge, "wv1", &c1).await;
            let shown = inside.link_with_index(port.interface).await.unwrap().unwrap();
            assert_eq!((shown.name.as_str(), shown.tied_to), ("eth0", Some(port.host_end)));
            let started = Instant::now();
            assert!(delete_port(&netlink, "wv1").await.unwrap());
            early.push(started.elapsed());
            check_gone(&netlink, &inside, "wv1").await;
            assert!(!delete_port(&netlink, "wv1").await.unwrap());
        }
        for _ in 0..30 {
            create(&netlink, bridge, "wv1", &c1).await;
            let started = Instant::now();
            assert!(netlink.delete_link("wv1").await.unwrap());
            blocking.push(started.elapsed());
        }
        // Figures only: on a busy host the scheduling of a second process may cost more.
        println!("deletion in the request: {}", figures(blocking));
        println!("deletion by notification: {}", figures(early));
    });
}

#[test]
#[ignore = "needs root"]
fn several_processes_delete_and_create_at_once() {
    on_a_host(async |netlink| {
        let bridge = segment::ensure(&netlink, &spec()).await.unwrap().bridge;
        let host = Netns::current().unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let host = &host;
                scope.spawn(move || {
                    let c1 = container();
                    let work = || {
                        let runtime = tokio::runtime::Builder::new_current_thread().build();
                        runtime.unwrap().block_on(async {
                            let name = format!("wv{n}");
                            let netlink = Netlink::open().unwrap();
                            let inside = Netlink::open_in(&c1, Entry::CallingThread).unwrap();
                            for _ in 0..25 {
                                create(&netlink, bridge, &name, &c1).await;
                                assert!(delete_port(&netlink, &name).await.unwrap());
                                check_gone(&netlink, &inside, &name).await;
                            }
                        });
                    };
                    host.run(Entry::NewThread, work).unwrap();
                });
            }
        });
    });
}

/// The child processes of the calling thread, zombies too.
fn children() -> String {
    let me = nix::unistd::gettid();
    std::fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap()
}

#[test]
#[ignore = "needs root"]
fn helper_holds_no_descriptor_of_the_caller() {
    on_a_host(async |netlink| {
        let bridge = segment::ensure(&netlink, &spec()).await.unwrap().bridge;
        let c1 = container();
        let mut early = 0;
        for _ in 0..20 {
            create(&netlink, bridge, "wv1", &c1).await;
            // As a runtime gives one to a plugin, and waits for its end.
            let (read, write) = std::io::pipe().unwrap();
            assert!(delete_port(&netlink, "wv1").await.unwrap());
            drop(write);
            let mut descriptors = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            let ended = poll(&mut descriptors, PollTimeout::ZERO).unwrap() == 1;
            let children = children();
            let Some(pid) = children.split_whitespace().last() else { continue };
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
            assert_eq!(session, pid, "a session of its own");
            early += usize::from(ended && !stat.contains(") Z "));
        }
        assert!(early > 0, "the pipe never ended before the helper did");
    });
}

#[test]
#[ignore = "needs root"]
fn caller_that_lives_on_collects_its_helpers() {
    on_a_host(async |netlink| {
        let bridge = segment::ensure(&netlink, &spec()).await.unwrap().bridge;
        let c1 = container();
        for _ in 0..5 {
            create(&netlink, bridge, "wv1", &c1).await;
            assert!(delete_port(&netlink, "wv1").await.unwrap());
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !children().is_empty() {
            assert!(Instant::now() < deadline, "left: {}", children());
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!delete_port(&netlink, "wv1").await.unwrap());
        }
    });
}

#[test]
#[ignore = "needs root"]
fn refusal_of_the_kernel_reaches_the_caller() {
    on_a_host(async |netlink| {
        sh("ip link add wv1 type veth peer name c1
            ip link set wv1 alias 'weft:c1/eth0 on network red'");
        // Without the capability, as a thread: fork(2) takes over what the calling thread may do.
        let host = Netns::current().unwrap();
        let error = std::thread::scope(|scope| {
            let plugin = scope.spawn(|| {
                host.run(Entry::CallingThread, || ()).unwrap();
                let netlink = Netlink::open().unwrap();
                // SAFETY of the test: only this thread changes, and it ends.
                drop_capabilities();
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(delete_port(&netlink, "wv1")).unwrap_err()
            });
            plugin.join().unwrap()
        });
        assert_eq!(error.errno(), Some(libc::EPERM), "{error}");
        assert!(error.to_string().contains("wv1"), "{error}");
        assert!(netlink.link("wv1").await.unwrap().is_some());
        // A device that the kernel does not let go by request.
        let error = netlink.delete_link("lo").await.unwrap_err();
        assert!(error.errno().is_some(), "{error}");
        // One that is no host end is not asked for.
        assert!(!delete_port(&netlink, "lo").await.unwrap());
        let c1 = container();
        assert_eq!(sh_in(&c1, "ip -o link show | wc -l"), "1\n");
    });
}

/// Takes all capabilities from the calling thread (capset(2)).
#[allow(unsafe_code, reason = "capset(2) has no safe form here")]
fn drop_capabilities() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let data = [0u32; 6];
    // SAFETY: both have the layout of `linux/capability.h`, version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    assert_eq!(result, 0);
}

#[test]
#[ignore = "needs root"]
fn offloaded_deletion_needs_no_helper() {
    on_a_host(async |inline| {
        let bridge = segment::ensure(&inline, &spec()).await.unwrap().bridge;
        let c1 = container();
        let netlink = Netlink::open_offloaded().unwrap();
        create(&netlink, bridge, "wv1", &c1).await;
        assert!(delete_port(&netlink, "wv1").await.unwrap());
        assert!(!delete_port(&netlink, "wv1").await.unwrap());
    });
}
