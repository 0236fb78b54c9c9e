//! Makes containers' host ends ports of the bridge again.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use log::{info, warn};
use weft_datapath::link::Link;
use weft_datapath::ports;
use weft_ledger::{Ledger, Reservation};
use weft_model::{NetworkName, device};

use crate::error::WiringError;
use crate::host::Host;
use crate::host_ends::is_host_end;
use crate::segment_state::SegmentState;

impl Host {
    /// Makes containers' host ends ports of the bridge again, where it was deleted or they were
    /// taken from it.
    pub(crate) async fn join_ports(&self, state: &SegmentState) -> Result<(), WiringError> {
        let name = state.network.name();
        let mut links = self.netlink().links().await?;
        links.retain(|link| is_host_end(link, name));
        let kept_off = self.kept_off(state)?;
        links.retain(|link| !kept_off.contains(&link.name));
        let (joined, lost): (Vec<Link>, Vec<Link>) =
            links.into_iter().partition(|port| ports::is_joined(port, state.bridge));
        let hairpins = self.note_hairpins(name, joined, &lost);
        for mut port in lost {
            // What was a setting of the port went with the bridge.
            port.port.hairpin |= hairpins.contains(&port.name);
            // One that cannot be helped is no reason not to help the others.
            let joined = match ports::other_ends_mac(self.netlink(), &port.name).await {
                Ok(Some(mac)) => ports::join(self.netlink(), &port, state.bridge, mac).await,
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match joined {
                Ok(()) => info!("network {name}: {} is a port of the bridge again", port.name),
                Err(error) if error.is_missing() => {}
                Err(error) => warn!("network {name}: {error}"),
            }
        }
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
        joined: Vec<Link>,
        lost: &[Link],
    ) -> BTreeSet<String> {
        let mut hairpins = self.hairpins.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = hairpins.entry(network.clone()).or_default();
        noted.retain(|name| lost.iter().any(|port| &port.name == name));
        noted.extend(joined.into_iter().filter(|p| p.port.hairpin).map(|p| p.name));
        noted.clone()
    }
}
