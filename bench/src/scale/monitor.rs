//! Entries for remote addresses as they arrive in the kernels of hosts, by the kernel's own
//! notifications.
//!
//! An address is there once all its three entries are: in the neighbours of the bridge, in the
//! bridge's FDB and in the VXLAN device's.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use weft_model::MacAddr;

use crate::sandbox::Sandbox;

/// `RTNLGRP_NEIGH` of `linux/rtnetlink.h`: neighbours and FDB entries.
const GROUP: u32 = 3;

/// Bytes of notifications that wait for this program, all hosts together. Hundreds of thousands
/// come in a second.
const BUFFER: usize = 512 << 20;

/// Tables, a bit each.
const ALL_TABLES: u8 = 0b111;

/// Subscriptions to the neighbours of some hosts, from when it is made.
pub(crate) struct Monitor {
    sockets: Vec<Socket>,
}

/// Addresses that a host still lacks.
struct Lacking {
    tables: Vec<u8>,
    count: usize,
    complete: Option<Instant>,
}

impl Monitor {
    /// Subscribes in the network namespaces of the hosts.
    pub(crate) fn open(hosts: &[&Sandbox]) -> Result<Self> {
        let open = |host: &&Sandbox| {
            // A socket belongs to the namespace that it was made in, whichever thread reads from
            // it.
            host.enter(|| {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.bind_auto()?;
                socket.set_non_blocking(true)?;
                setsockopt(&socket, sockopt::RcvBufForce, &(BUFFER / hosts.len()))?;
                socket.add_membership(GROUP)?;
                Ok(socket)
            })
        };
        Ok(Self { sockets: hosts.iter().map(open).collect::<Result<_>>()? })
    }

    /// Waits until each host has all entries for the wanted addresses, until the deadline at most.
    /// Returns when that was, for each host. Only entries set since the last call or the
    /// subscription count.
    pub(crate) fn wait(
        &self,
        wanted: &[Ipv4Addr],
        deadline: Duration,
    ) -> Result<Vec<Option<Instant>>> {
        let deadline = Instant::now() + deadline;
        let places: HashMap<MacAddr, usize> =
            wanted.iter().enumerate().map(|(n, ip)| (MacAddr::for_ipv4(*ip), n)).collect();
        let mut hosts: Vec<Lacking> = self
            .sockets
            .iter()
            .map(|_| Lacking { tables: vec![0; wanted.len()], count: wanted.len(), complete: None })
            .collect();
        while hosts.iter().any(|host| host.complete.is_none()) && Instant::now() < deadline {
            let mut fds: Vec<PollFd<'_>> =
                self.sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::from(50_u8))?;
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or_default()).collect();
            for ((socket, host), _) in
                self.sockets.iter().zip(&mut hosts).zip(ready).filter(|(_, ready)| *ready)
            {
                drain(socket, &places, host)?;
            }
        }
        Ok(hosts.into_iter().map(|host| host.complete).collect())
    }
}

/// Reads what has arrived.
fn drain(socket: &Socket, places: &HashMap<MacAddr, usize>, host: &mut Lacking) -> Result<()> {
    let mut buffer = Vec::with_capacity(1 << 16);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                return Err(error).context("the kernel dropped notifications of neighbours");
            }
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer)?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) =
            message.payload
        else {
            continue;
        };
        let Some((mac, table)) = entry(&message) else { continue };
        let Some(tables) = places.get(&mac).and_then(|place| host.tables.get_mut(*place)) else {
            continue;
        };
        if *tables != ALL_TABLES && (*tables | table) == ALL_TABLES {
            host.count -= 1;
        }
        *tables |= table;
        if host.count == 0 && host.complete.is_none() {
            host.complete = Some(Instant::now());
        }
    }
}

/// The MAC that an entry is for, which stands for the address too, and the bit of the entry's
/// table.
fn entry(message: &NeighbourMessage) -> Option<(MacAddr, u8)> {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let mac = MacAddr::from_bytes(mac?);
    match message.header.family {
        AddressFamily::Bridge if message.header.flags.contains(NeighbourFlags::Own) => {
            Some((mac, 0b001))
        }
        AddressFamily::Bridge => Some((mac, 0b010)),
        AddressFamily::Inet if message.header.state == NeighbourState::Permanent => {
            let right = message.attributes.iter().any(|attribute| {
                matches!(attribute, NeighbourAttribute::Destination(NeighbourAddress::Inet(ip))
                    if MacAddr::for_ipv4(*ip) == mac)
            });
            right.then_some((mac, 0b100))
        }
        _ => None,
    }
}
