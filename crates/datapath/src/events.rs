//! News of links.

use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use crate::DatapathError;
use crate::link::link_of;

/// Changes come in bursts; what comes within this time is one piece of news.
const BURST: Duration = Duration::from_millis(20);

type Messages =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send>>;

/// A subscription to news of certain links.
pub struct Events {
    messages: Messages,
    names: Vec<String>,
    connection: JoinHandle<()>,
}

impl Drop for Events {
    /// Ends the connection: one that nobody reads from would report each message it can't deliver.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Events {
    /// Subscribes to news of the links with these names, in the calling thread's namespace.
    pub fn subscribe(names: Vec<String>) -> Result<Self, DatapathError> {
        let failed =
            |source| DatapathError::Io { what: "subscribe to news of links".into(), source };
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map_err(failed)?;
        let messages = Box::pin(messages.map(|(message, _)| message.payload));
        Ok(Self { messages, names, connection: tokio::spawn(connection) })
    }

    /// Waits until something has happened to one of the links, or may have: the kernel drops news
    /// when there is too much of it, and says so.
    pub async fn changed(&mut self) {
        loop {
            match self.messages.next().await {
                Some(payload) if !self.concerns(&payload) => {}
                Some(_) => break,
                // The socket is gone; whoever waits has a slow clock too.
                None => return std::future::pending().await,
            }
        }
        let burst = async { while self.messages.next().await.is_some() {} };
        let _ = tokio::time::timeout(BURST, burst).await;
    }

    fn concerns(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        match payload {
            NetlinkPayload::InnerMessage(message) => {
                let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) =
                    message
                else {
                    return false;
                };
                // News of a bridge's ports come once more in the bridge's own family.
                let name = link_of(&RouteNetlinkMessage::NewLink(link.clone())).map(|l| l.name);
                link.header.interface_family != AddressFamily::Bridge
                    && name.is_some_and(|name| self.names.contains(&name))
            }
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }
}
