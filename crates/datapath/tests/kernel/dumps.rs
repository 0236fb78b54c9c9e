//! Requests and lists that share a connection.

use std::time::Duration;

use weft_datapath::netlink::Netlink;

use crate::ground::{on_a_host, sh};

/// An answer of several packets keeps the kernel's dump open in between.
const MANY_LINKS: &str = "seq 1 100 | sed 's/.*/link add b& type bridge/' | ip -batch -";

#[test]
#[ignore = "needs root"]
fn tasks_that_share_a_connection_list_at_once() {
    on_a_host(async |inline| {
        sh(MANY_LINKS);
        for netlink in [inline, Netlink::open_offloaded().unwrap()] {
            let list = || {
                let netlink = netlink.clone();
                tokio::spawn(async move { netlink.links().await.map(|links| links.len()) })
            };
            let tasks: Vec<_> = (0..16).map(|_| list()).collect();
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap(), 103);
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn list_that_is_given_up_does_not_disturb_the_next() {
    on_a_host(async |_| {
        sh(MANY_LINKS);
        let netlink = Netlink::open_offloaded().unwrap();
        for _ in 0..20 {
            let limit = Duration::from_micros(300);
            let _ = tokio::time::timeout(limit, netlink.links()).await;
            assert_eq!(netlink.links().await.unwrap().len(), 103);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn offloaded_request_leaves_its_thread_free() {
    on_a_host(async |_| {
        sh("ip link add long type veth peer name longer");
        let netlink = Netlink::open_offloaded().unwrap();
        let deleted = tokio::spawn(async move { netlink.delete_link("long").await });
        let mut ticks = 0;
        while !deleted.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks += 1;
        }
        assert!(deleted.await.unwrap().unwrap());
        assert!(ticks > 3, "the thread ran {ticks} times while the kernel waited for its readers");
    });
}
