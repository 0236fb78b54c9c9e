//! The underlay of this host, looked up in one place for all tasks.
//!
//! Another address means another record in the cluster store and other tunnels, so registration and
//! the devices of all networks wait for the same event. An event of any link leads to a lookup; a
//! timer covers addresses, of which there are no events.

use std::time::Duration;

use log::{debug, info};
use tokio::sync::watch;
use weft_datapath::netlink::Netlink;
use weft_datapath::underlay::{self, Underlay};
use weft_wiring::{Host, selector};

use super::link_events::LinkEvents;

/// Interval of lookups without an event.
const SLOW: Duration = Duration::from_secs(5);

/// Least time between two lookups: containers that start are events of links too.
const PACE: Duration = Duration::from_millis(500);

/// The underlay as it was last seen; `None` until there has been one.
pub type Seen = Option<Underlay>;

/// Looks the underlay up. There is none while its interface is gone or has no address.
async fn find(host: &Host, netlink: &Netlink) -> Seen {
    let selector = selector(&host.config().underlay);
    match underlay::find(netlink, &selector).await {
        Ok(underlay) => Some(underlay),
        Err(error) => {
            debug!("no underlay: {error}");
            None
        }
    }
}

/// Keeps `seen` current for as long as the future is polled. An underlay that is gone for a moment
/// is no other one: `seen` keeps the last.
pub async fn follow(
    host: &Host,
    netlink: Netlink,
    mut links: LinkEvents,
    seen: watch::Sender<Seen>,
) {
    loop {
        let _ = tokio::time::timeout(SLOW, links.any()).await;
        if let Some(now) = find(host, &netlink).await {
            seen.send_if_modified(|last| replace(last, now));
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Replaces the last underlay by the one that there is `now`. Returns whether it is another.
fn replace(last: &mut Seen, now: Underlay) -> bool {
    if last.as_ref() == Some(&now) {
        return false;
    }
    info!("the underlay is {} with vtep {} and mtu {}", now.name, now.vtep, now.mtu);
    *last = Some(now);
    true
}
