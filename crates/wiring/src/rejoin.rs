//! Makes containers' host ends ports of the bridge again, and opens those that another device has
//! taken the MAC of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

use log::{info, warn};
use weft_datapath::attach::entry;
use weft_datapath::link::Link;
use weft_datapath::ports::{self, ClosedPort};
use weft_ledger::{FileError, Ledger, Reservation};
use weft_model::{MacAddr, Network, NetworkName, device};

use crate::error::WiringError;
use crate::host::Host;
use crate::host_ends::is_host_end;
use crate::segment_state::SegmentState;

impl Host {
    /// Makes containers' host ends ports of the bridge again, where it was deleted or they were
    /// taken from it.
    pub(crate) async fn join_ports(&self, state: &SegmentState) -> Result<(), WiringError> {
        let name = state.network.name();
        self.restore_bridge(state).await?;
        let all = self.netlink().links().await?;
        let mut links = all.clone();
        links.retain(|link| is_host_end(link, name));
        let kept_off = self.kept_off(state)?;
        links.retain(|link| !kept_off.contains(&link.name));
        let (joined, lost): (Vec<Link>, Vec<Link>) =
            links.into_iter().partition(|port| ports::is_joined(port, state.bridge));
        let hairpins = self.note_hairpins(name, &joined, &lost);
        let closed = self.closed_ports(state, &joined).await?;
        let closed = closed.into_iter().filter(|port| port.lets_through.is_empty());
        let closed: Vec<ClosedPort> = closed.collect();
        if lost.is_empty() && closed.is_empty() {
            return Ok(());
        }
        let macs = ports::other_ends_macs(self.netlink(), &lost).await?;
        let rights = Rights::read(&self.config().data_dir, state)?;
        for (mut port, mac) in lost.into_iter().zip(macs) {
            let Some(mac) = mac else { continue };
            // What was a setting of the port went with the bridge.
            port.port.hairpin |= hairpins.contains(&port.name);
            let right = rights.of(&port, mac);
            let takes_from = right.takes_from(&all, state.bridge);
            // One that cannot be helped is no reason not to help the others.
            match ports::join(self.netlink(), &port, state.bridge, right.mac, &takes_from).await {
                Ok(()) => info!("network {name}: {} is a port of the bridge again", port.name),
                Err(error) if error.is_missing() => {}
                Err(error) => warn!("network {name}: {error}"),
            }
        }
        for closed in closed {
            let right = rights.of(&closed.port, closed.mac);
            let takes_from = right.takes_from(&all, state.bridge);
            let (port, mac) = (&closed.port, right.mac);
            match ports::open(self.netlink(), port, state.bridge, mac, &takes_from).await {
                Ok(()) => warn!("network {name}: {closed}; it lets {mac} through again"),
                Err(error) if error.is_missing() => {}
                Err(error) => warn!("network {name}: {closed}; {error}"),
            }
        }
        Ok(())
    }

    /// Those of `ports`, host ends that are ports of the network's bridge, that drop the frames of
    /// their containers.
    pub async fn closed_ports(
        &self,
        state: &SegmentState,
        ports: &[Link],
    ) -> Result<Vec<ClosedPort>, WiringError> {
        Ok(ports::closed(self.netlink(), state.bridge, ports).await?)
    }

    /// Gives the bridge the entry of its own MAC back, if another device has taken it.
    async fn restore_bridge(&self, state: &SegmentState) -> Result<(), WiringError> {
        let (bridge, mac) = (state.bridge, state.bridge_mac);
        let entry = entry::entries(self.netlink(), bridge, &[mac]).await?.pop().flatten();
        if entry.is_some_and(|entry| entry.port == bridge) {
            return Ok(());
        }
        entry::restore_own(self.netlink(), bridge, mac).await?;
        let name = state.network.name();
        warn!("network {name}: the bridge had lost its MAC {mac}, and has it again");
        Ok(())
    }

    /// The host ends of containers whose addresses are other nodes' now: they stay disconnected.
    fn kept_off(&self, state: &SegmentState) -> Result<BTreeSet<String>, WiringError> {
        let ledger = Ledger::open(&self.config().data_dir, state.network.clone());
        let stranded = ledger.and_then(|ledger| ledger.stranded())?;
        let attachment = |held: &Reservation| held.holder.attachment(state.network.name());
        let attachments = stranded.iter().filter_map(attachment);
        Ok(attachments.map(|attachment| device::host_end(&attachment)).collect())
    }

    /// Notes which ports have hairpin mode on, and returns them together with those of the `lost`
    /// ones that had it.
    fn note_hairpins(
        &self,
        network: &NetworkName,
        joined: &[Link],
        lost: &[Link],
    ) -> BTreeSet<String> {
        let mut hairpins = self.hairpins.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = hairpins.entry(network.clone()).or_default();
        noted.retain(|name| lost.iter().any(|port| &port.name == name));
        let hairpins = joined.iter().filter(|port| port.port.hairpin);
        noted.extend(hairpins.map(|port| port.name.clone()));
        noted.clone()
    }
}

/// The MACs that the host ends of a network's containers have a right to, by the node's files.
struct Rights<'a> {
    network: &'a Network,
    /// The MAC of each container's address, by its host end.
    reserved: BTreeMap<String, MacAddr>,
}

/// The MAC that a host end is to let through.
struct Right {
    mac: MacAddr,
    /// True if it is that of the container's address: no other port of the host may have it.
    is_certain: bool,
}

impl<'a> Rights<'a> {
    fn read(data_dir: &Path, state: &'a SegmentState) -> Result<Self, FileError> {
        let network = &state.network;
        let mac = |held: &Reservation| {
            let host_end = device::host_end(&held.holder.attachment(network.name())?);
            Some((host_end, network.addresses(held.pool, held.host)?.mac))
        };
        let reservations = Ledger::open(data_dir, network.clone())?.reservations()?;
        Ok(Self { network, reserved: reservations.iter().filter_map(mac).collect() })
    }

    /// The MAC for a host end whose container has `current`. A container can change its MAC: what
    /// it has counts only if it is no other address's.
    fn of(&self, host_end: &Link, current: MacAddr) -> Right {
        match self.reserved.get(&host_end.name) {
            Some(reserved) if *reserved == current || self.network.host_of(current).is_some() => {
                Right { mac: *reserved, is_certain: true }
            }
            _ => Right { mac: current, is_certain: false },
        }
    }
}

impl Right {
    /// The ports of `bridge` that the MAC may be taken from.
    fn takes_from(&self, links: &[Link], bridge: u32) -> Vec<u32> {
        let ports = links.iter().filter(|link| self.is_certain && link.bridge == Some(bridge));
        ports.map(|port| port.index).collect()
    }
}
