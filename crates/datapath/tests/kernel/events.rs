//! Events of links.

use std::time::Duration;

use weft_datapath::events::Events;

use crate::ground::{on_a_host, sh};

/// Long enough for an event that is on its way, and for a burst to end.
const QUIET: Duration = Duration::from_millis(300);

#[test]
#[ignore = "needs root"]
fn events_are_those_of_the_named_links() {
    on_a_host(async |_| {
        let mut events = Events::subscribe().unwrap();
        let mut is_told = async || tokio::time::timeout(QUIET, events.changed()).await.is_ok();
        assert!(!is_told().await);
        for (change, told) in [
            ("ip link add b2 type bridge", false),
            ("ip link add b1 type bridge", true),
            ("ip link set b2 up", false),
            ("ip link set b1 up", true),
            ("ip link set b2 mtu 1400; ip link set b1 mtu 1400", true),
            ("ip link delete b1", true),
            ("ip link delete b2", false),
        ] {
            sh(change);
            assert_eq!(is_told().await, told, "{change}");
            assert!(!is_told().await, "{change}: a burst is one event");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn dropped_notifications_count_as_an_event() {
    on_a_host(async |_| {
        let mut events = Events::subscribe().unwrap();
        // More than the socket's buffer holds, and none of it about b1.
        sh("seq 1 300 | sed 's/.*/link add c& type bridge/' | ip -batch -");
        tokio::time::timeout(Duration::from_secs(5), events.changed()).await.unwrap();
        sh("ip link add b1 type bridge");
        tokio::time::timeout(Duration::from_secs(5), events.changed()).await.unwrap();
    });
}
