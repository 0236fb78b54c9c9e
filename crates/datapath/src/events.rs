//! Events of links.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use log::warn;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::DatapathError;
use crate::link::Link;
use crate::netlink::{Failure, Socket, parse};

/// Changes come in bursts; those within this time are one event.
const BURST: Duration = Duration::from_millis(20);

/// The group of notifications about links (`RTMGRP_LINK`).
const GROUP_LINK: u32 = 1;

/// A subscription to events of all links of a namespace.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<Socket>,
}

/// Links to which something has happened within one burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The links with these names.
    Links(BTreeSet<String>),
    /// Perhaps any: the kernel had more to say than the socket's buffer holds.
    Any,
}

impl Changed {
    /// Returns whether something has happened to the link called `name`, or may have.
    pub fn concerns(&self, name: &str) -> bool {
        match self {
            Self::Links(names) => names.contains(name),
            Self::Any => true,
        }
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Links(names), Self::Links(more)) => names.extend(more),
            _ => *self = Self::Any,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Links(names) if names.is_empty())
    }
}

impl Events {
    /// Subscribes to events of the links of the calling thread's namespace, within a runtime.
    pub fn subscribe() -> Result<Self, DatapathError> {
        let failed =
            |source| DatapathError::Io { what: "subscribe to events of links".into(), source };
        let socket = Socket::subscribe(GROUP_LINK).map_err(failed)?;
        let socket = register(socket).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Waits until something has happened to a link, and collects what follows within a moment.
    /// Never resolves once the socket has failed; callers compare on a timer too.
    pub async fn changed(&mut self) -> Changed {
        let mut changed = self.next().await;
        while changed.is_empty() {
            changed = self.next().await;
        }
        let burst = async {
            loop {
                let more = self.next().await;
                changed.add(more);
            }
        };
        let _ = tokio::time::timeout(BURST, burst).await;
        changed
    }

    /// Waits for notifications; returns the links that they are about.
    async fn next(&mut self) -> Changed {
        let mut ready = match self.socket.readable_mut().await {
            Ok(ready) => ready,
            Err(error) => {
                warn!("events of links: {error}");
                return std::future::pending().await;
            }
        };
        let mut names = BTreeSet::new();
        let read = ready.get_inner_mut().notifications(|kind, payload| {
            names.extend(parse(kind, payload).as_ref().and_then(link_name));
        });
        match read {
            Ok(()) => ready.clear_ready(),
            Err(Failure::Lost(_)) => return Changed::Any,
            Err(error) => {
                warn!("events of links: {error:?}");
                return std::future::pending().await;
            }
        }
        Changed::Links(names)
    }
}

#[expect(unsafe_code, reason = "tokio cannot check that the descriptor stays open")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, always names the same one, and closes it when
    // dropped.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// The link that a notification is about.
fn link_name(message: &RouteNetlinkMessage) -> Option<String> {
    let (RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) = message else {
        return None;
    };
    // Events of a bridge's ports come a second time in the bridge's own family.
    if link.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    Some(Link::of(link).name)
}
