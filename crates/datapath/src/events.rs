//! Events of links.

use std::io;
use std::time::Duration;

use log::warn;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::DatapathError;
use crate::link::link_of;
use crate::netlink::{Failure, Socket, parse};

/// Changes come in bursts; those within this time are one event.
const BURST: Duration = Duration::from_millis(20);

/// The group of notifications about links (`RTMGRP_LINK`).
const GROUP_LINK: u32 = 1;

/// A subscription to events of certain links.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<Socket>,
    names: Vec<String>,
}

impl Events {
    /// Subscribes to events of the links with these names, in the calling thread's namespace and
    /// within a runtime.
    pub fn subscribe(names: Vec<String>) -> Result<Self, DatapathError> {
        let failed =
            |source| DatapathError::Io { what: "subscribe to events of links".into(), source };
        let socket = Socket::subscribe(GROUP_LINK).map_err(failed)?;
        let socket = register(socket).map_err(failed)?;
        Ok(Self { socket, names })
    }

    /// Waits until something has happened to one of the links, or may have: the kernel drops
    /// notifications when there are too many, and says so. Never resolves once the socket has failed;
    /// callers compare on a timer too.
    pub async fn changed(&mut self) {
        while !self.next().await {}
        let burst = async {
            loop {
                self.next().await;
            }
        };
        let _ = tokio::time::timeout(BURST, burst).await;
    }

    /// Waits for notifications; returns whether one of the links is among them, or may be.
    async fn next(&mut self) -> bool {
        let mut ready = match self.socket.readable_mut().await {
            Ok(ready) => ready,
            Err(error) => {
                warn!("events of links: {error}");
                return std::future::pending().await;
            }
        };
        let mut concerned = false;
        let names = &self.names;
        let read = ready.get_inner_mut().notifications(|kind, payload| {
            concerned |= parse(kind, payload).is_some_and(|message| concerns(names, &message));
        });
        match read {
            Ok(()) => ready.clear_ready(),
            Err(Failure::Lost(_)) => concerned = true,
            Err(error) => {
                warn!("events of links: {error:?}");
                return std::future::pending().await;
            }
        }
        concerned
    }
}

#[expect(unsafe_code, reason = "tokio cannot check that the descriptor stays open")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, always names the same one, and closes it when dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn concerns(names: &[String], message: &RouteNetlinkMessage) -> bool {
    let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) = message else {
        return false;
    };
    // Events of a bridge's ports come a second time in the bridge's own family.
    let name = link_of(&RouteNetlinkMessage::NewLink(link.clone())).map(|link| link.name);
    link.header.interface_family != AddressFamily::Bridge
        && name.is_some_and(|name| names.contains(&name))
}
