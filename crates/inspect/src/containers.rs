//! The containers of this node, as far as kernel and processes tell of them.

use std::collections::BTreeMap;

use weft_allocator::liveness::{Evidence, Interface, Life, Living};
use weft_datapath::link::Link;
use weft_ledger::{Holder, Reservation, Sandbox};
use weft_model::{Network, device};
use weft_wiring::{Host, WiringError};

use crate::records::Files;

/// The interfaces of this host by name.
pub(crate) type Links = BTreeMap<String, Link>;

/// The interfaces of `host`.
pub(crate) async fn links(host: &Host) -> Result<Links, WiringError> {
    let links = host.netlink().links().await?;
    Ok(links.into_iter().map(|link| (link.name.clone(), link)).collect())
}

/// The host end that an attachment of weft's has.
pub(crate) fn host_end(network: &Network, holder: &Holder) -> Option<String> {
    holder.attachment(network.name()).map(|attachment| device::host_end(&attachment))
}

/// Evidence about all containers of a network, read once: the walk over all processes takes the
/// longer the more there are.
pub(crate) struct Containers {
    /// The host's interfaces.
    pub(crate) links: Links,
    living: Living,
}

impl Containers {
    /// Reads the network namespaces of all processes, and those of the sandboxes that `files` name.
    pub(crate) fn read(links: Links, files: &Files) -> Self {
        let reserved = files.reservations.iter().filter_map(|held| held.sandbox.as_ref());
        let damaged = files.damaged.iter().filter_map(|damaged| damaged.sandbox.as_ref());
        Self { links, living: Living::observe(reserved.chain(damaged)) }
    }

    /// Judges whether a container is there.
    pub(crate) fn life(&self, sandbox: Option<&Sandbox>, host_end: Option<&str>) -> Life {
        self.living.judge(&self.evidence(sandbox, host_end))
    }

    /// Returns whether no process is in the sandbox of the reservation, whose host end is there.
    pub(crate) fn is_deserted(&self, held: &Reservation, host_end: &str) -> bool {
        let evidence = self.evidence(held.sandbox.as_ref(), Some(host_end));
        evidence.interface == Interface::There
            && self.living.is_deserted(&Evidence { age: held.age(), ..evidence })
    }

    fn evidence<'a>(&self, sandbox: Option<&'a Sandbox>, host_end: Option<&str>) -> Evidence<'a> {
        let interface = if host_end.is_some_and(|name| self.links.contains_key(name)) {
            Interface::There
        } else {
            Interface::Unseen
        };
        Evidence { sandbox, interface, ..Evidence::default() }
    }
}
