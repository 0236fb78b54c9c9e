//! Events of links.

use std::time::Duration;

use weft_datapath::events::{Changed, Events};

use crate::ground::{on_a_host, sh};

/// Long enough for an event that is on its way, and for a burst to end.
const QUIET: Duration = Duration::from_millis(300);

#[test]
#[ignore = "needs root"]
fn events_name_the_links_that_changed() {
    on_a_host(async |_| {
        let mut events = Events::subscribe().unwrap();
        assert!(tokio::time::timeout(QUIET, events.changed()).await.is_err());
        for (change, told) in [
            ("ip link add b1 type bridge", vec!["b1"]),
            ("ip link set b1 up", vec!["b1"]),
            ("ip link add b2 type bridge", vec!["b2"]),
            ("ip link set b2 mtu 1400; ip link set b1 mtu 1400", vec!["b1", "b2"]),
            ("ip link delete b1", vec!["b1"]),
        ] {
            sh(change);
            let changed = tokio::time::timeout(QUIET, events.changed()).await.unwrap();
            let names = told.into_iter().map(str::to_owned).collect();
            assert_eq!(changed, Changed::Links(names), "{change}");
            let more = tokio::time::timeout(QUIET, events.changed()).await;
            assert!(more.is_err(), "{change}: a burst is one event");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn dropped_notifications_concern_every_link() {
    on_a_host(async |_| {
        let mut events = Events::subscribe().unwrap();
        // More than the socket's buffer holds.
        sh("seq 1 300 | sed 's/.*/link add c& type bridge/' | ip -batch -");
        let changed = tokio::time::timeout(Duration::from_secs(5), events.changed()).await;
        assert!(changed.unwrap().concerns("b1"));
        sh("ip link add b1 type bridge");
        let changed = tokio::time::timeout(Duration::from_secs(5), events.changed()).await;
        assert!(changed.unwrap().concerns("b1"));
    });
}
