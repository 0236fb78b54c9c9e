//! Lists that are asked for on one connection.

use crate::ground::{on_a_host, sh};

#[test]
#[ignore = "needs root"]
fn tasks_that_share_a_connection_may_list_at_once() {
    on_a_host(async |netlink| {
        // An answer of several packets keeps the kernel's dump open in between.
        sh("seq 1 100 | sed 's/.*/link add b& type bridge/' | ip -batch -");
        let list = || {
            let netlink = netlink.clone();
            tokio::spawn(async move { netlink.links().await.map(|links| links.len()) })
        };
        let tasks: Vec<_> = (0..16).map(|_| list()).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 103);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_list_that_nobody_waits_for_is_in_nobodys_way() {
    on_a_host(async |netlink| {
        sh("seq 1 100 | sed 's/.*/link add b& type bridge/' | ip -batch -");
        for _ in 0..20 {
            let patience = std::time::Duration::from_micros(300);
            let _ = tokio::time::timeout(patience, netlink.links()).await;
            assert_eq!(netlink.links().await.unwrap().len(), 103);
        }
    });
}
