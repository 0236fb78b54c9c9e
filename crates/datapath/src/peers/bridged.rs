//! Peers by three tables of the kernel, an entry in each for every remote address (see the crate's
//! description): neighbours of the bridge, the bridge's FDB, the VXLAN device's FDB.
//!
//! [`reconcile`] compares whole tables and heals whatever went wrong before: an entry that was
//! missed, one that the kernel flushed with its device, one that another program removed.
//! [`apply_change`] programs the difference of two peer tables, at a cost that does not grow with
//! the network; it trusts that the kernel has what the old table says.
//!
//! Entries that are not weft's stay: only static entries that point at the VXLAN port, remotes of
//! single MACs, and permanent neighbours of the bridge are compared.

mod entries;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::warn;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_model::{MacAddr, Network};

pub use self::entries::{Change, Entries, changes_between};
use super::{PeerTable, Report};
use crate::DatapathError;
use crate::netlink::{self, Attributes, Failure, Netlink, Request, Socket, u16_at, u32_at};

/// Time for one pass. 200,000 entries take about a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests in one message. If all are refused, the answers fit the socket's receive buffer: each
/// takes less than 1 KiB of the 208 KiB that are the default (`net.core.rmem_default`).
const BATCH: usize = 128;

/// The devices of a network, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    /// The bridge.
    pub bridge: u32,
    /// The VXLAN device, a port of the bridge.
    pub vxlan: u32,
}

/// Makes the kernel's tables what `table` asks for, after a comparison with all that they hold. An
/// entry that the kernel refuses is counted, and the rest is programmed.
///
/// # Errors
///
/// If the tables cannot be listed, a device is gone, or the pass takes longer than a minute.
pub async fn reconcile(
    netlink: &Netlink,
    devices: Devices,
    network: &Network,
    table: &PeerTable,
) -> Result<Report, DatapathError> {
    let (network, table) = (network.clone(), table.clone());
    let what = || format!("compare peers (bridge index {})", devices.bridge);
    let work = move |socket: &mut Socket| {
        let deadline = Instant::now() + TIMEOUT;
        let observed = dump(socket, devices)?;
        let desired = Entries::of(&network, &table);
        make(socket, devices, observed.changes_to(&desired), deadline)
    };
    netlink.bulk(TIMEOUT, what, work).await
}

/// Programs the entries in which `old` and `new` differ, without a look at the others. An entry
/// that the kernel refuses is counted, and the rest is programmed.
///
/// # Errors
///
/// If a device is gone, or the pass takes longer than a minute: then [`reconcile`] what is left.
pub async fn apply_change(
    netlink: &Netlink,
    devices: Devices,
    network: &Network,
    old: &PeerTable,
    new: &PeerTable,
) -> Result<Report, DatapathError> {
    if old == new {
        return Ok(Report::default());
    }
    let what = || format!("program changed peers (bridge index {})", devices.bridge);
    // A change may be everything: the enumeration of addresses is work for the other thread too.
    let (network, old, new) = (network.clone(), old.clone(), new.clone());
    let work = move |socket: &mut Socket| {
        let deadline = Instant::now() + TIMEOUT;
        make(socket, devices, changes_between(&network, &old, &new).into_iter(), deadline)
    };
    netlink.bulk(TIMEOUT, what, work).await
}

/// The kernel's tables as they are.
pub async fn observe(netlink: &Netlink, devices: Devices) -> Result<Entries, DatapathError> {
    let what = || format!("list peers (bridge index {})", devices.bridge);
    netlink.bulk(TIMEOUT, what, move |socket| dump(socket, devices)).await
}

fn dump(socket: &mut Socket, Devices { bridge, vxlan }: Devices) -> Result<Entries, Failure> {
    // One dump shows both FDBs of a bridge's port. The FDB is filtered by the header, neighbours by
    // an attribute (`rtnl_fdb_dump`, `neigh_valid_dump_req`).
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    question.header.ifindex = vxlan;
    let question = RouteNetlinkMessage::GetNeighbour(question);
    let mut entries = socket.dump(&question, |entries: &mut Entries, _, payload| {
        let Some(Entry { flags, state, mac: Some(mac), address, .. }) =
            Entry::of(payload).filter(|entry| entry.index == vxlan)
        else {
            return;
        };
        if mac.bytes() == [0; 6] {
            // A flood entry.
        } else if flags.contains(NeighbourFlags::Own) {
            entries.vxlan.extend(address.map(|vtep| (mac, vtep)));
        } else if state == NeighbourState::Noarp {
            // Of the bridge's entries the static ones are weft's; the port's own MAC is permanent.
            entries.bridge.insert(mac);
        }
    })?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = NeighbourMessage::default();
        question.header.family = family;
        question.attributes.push(NeighbourAttribute::IfIndex(bridge));
        let question = RouteNetlinkMessage::GetNeighbour(question);
        let neighbours = socket.dump(&question, |neighbours: &mut HashMap<_, _>, _, payload| {
            if let Some(entry) = Entry::of(payload)
                && entry.index == bridge
                && entry.state == NeighbourState::Permanent
                && let (Some(address), Some(mac)) = (entry.address, entry.mac)
                && !address.is_multicast()
            {
                neighbours.insert(address, mac);
            }
        })?;
        if entries.neighbours.is_empty() {
            entries.neighbours = neighbours;
        } else {
            entries.neighbours.extend(neighbours);
        }
    }
    Ok(entries)
}

/// An entry of a neighbour table or FDB.
struct Entry {
    index: u32,
    flags: NeighbourFlags,
    state: NeighbourState,
    mac: Option<MacAddr>,
    address: Option<IpAddr>,
}

impl Entry {
    /// Reads `struct ndmsg` (`linux/neighbour.h`) and its attributes. By hand, since the library
    /// builds every attribute of every entry.
    fn of(payload: &[u8]) -> Option<Self> {
        const NDMSG: usize = 12;
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        let mut entry = Self {
            index: u32_at(payload, 4)?,
            state: u16_at(payload, 8)?.into(),
            flags: NeighbourFlags::from_bits_retain(*payload.get(10)?),
            mac: None,
            address: None,
        };
        for (kind, value) in Attributes::of(payload.get(NDMSG..)?) {
            match kind {
                NDA_LLADDR => entry.mac = <[u8; 6]>::try_from(value).ok().map(MacAddr::from_bytes),
                NDA_DST => entry.address = ip(value),
                _ => {}
            }
        }
        Some(entry)
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Makes changes in their order, many in one message.
fn make(
    socket: &mut Socket,
    devices: Devices,
    mut changes: impl Iterator<Item = Change>,
    deadline: Instant,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    loop {
        let batch: Vec<Change> = changes.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(report);
        }
        if Instant::now() > deadline {
            let done = report.set + report.removed + report.failed;
            return Err(Failure::Lost(format!(
                "only {done} changes made within {} s; compare all of them again",
                TIMEOUT.as_secs()
            )));
        }
        let requests = batch.iter().map(|change| request(devices, *change)).collect();
        for (change, outcome) in batch.iter().zip(socket.exchange(requests)?) {
            let Err(refusal) = outcome else {
                *(if change.is_removal() { &mut report.removed } else { &mut report.set }) += 1;
                continue;
            };
            let error = netlink::refused(format!("program peers: {change:?}"), refusal.clone());
            if change.is_removal() && error.is_missing() {
                continue;
            }
            // The device is gone: nothing of the rest can be programmed.
            if error.errno() == Some(libc::ENODEV) {
                return Err(Failure::Refused(refusal));
            }
            if report.failed == 0 {
                warn!("{error}");
            }
            report.failed += 1;
        }
    }
}

fn request(Devices { bridge, vxlan }: Devices, change: Change) -> Request {
    let mut message = NeighbourMessage::default();
    let (mac, address) = match change {
        Change::SetVxlan(mac, vtep) | Change::RemoveVxlan(mac, vtep) => {
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = vxlan;
            message.header.flags = NeighbourFlags::Own;
            message.header.state = NeighbourState::Permanent;
            (Some(mac), Some(vtep))
        }
        Change::SetBridge(mac) | Change::RemoveBridge(mac) => {
            message.header.family = AddressFamily::Bridge;
            message.header.ifindex = vxlan;
            message.header.flags = NeighbourFlags::Controller;
            message.header.state = NeighbourState::Noarp;
            (Some(mac), None)
        }
        Change::SetNeighbour(address, _) | Change::RemoveNeighbour(address) => {
            message.header.family =
                if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            message.header.ifindex = bridge;
            message.header.state = NeighbourState::Permanent;
            let mac = match change {
                Change::SetNeighbour(_, mac) => Some(mac),
                _ => None,
            };
            (mac, Some(address))
        }
    };
    message.attributes.extend(address.map(|address| {
        NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        })
    }));
    message
        .attributes
        .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec())));
    if change.is_removal() {
        Request::change(RouteNetlinkMessage::DelNeighbour(message), 0)
    } else {
        Request::change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }
}
