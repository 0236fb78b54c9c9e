//! Addresses that killed calls and killed runtimes have left in sandboxes that live on.
//!
//! Two cases, each judged by [`weft_allocator::liveness`]:
//!
//! - The call that reserved the address was killed before it made the interface, while it made it,
//!   or after it removed it. The sandbox lives and has no such interface, or one that is down and
//!   without the address.
//! - The runtime was killed. The sandbox is pinned, with its interface, and no process is in it.
//!
//! A call that is under way looks like the first case, and holds the attachment's [lock](CallLock).
//! So all is looked at again under that lock, and only the very reservation that was judged is
//! freed, its interface before it.

use std::collections::HashSet;
use std::path::Path;

use log::info;
use weft_allocator::liveness::{Evidence, Interface, Life, Living, Runtime};
use weft_allocator::release::{Reason, free};
use weft_datapath::link::Link;
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Attachment, IfName, Network, device};

use crate::call_lock::CallLock;
use crate::detach::detach;
use crate::error::WiringError;
use crate::segment_state::SegmentState;

/// Frees what is left of the attachments of `network` in sandboxes that live, and removes their
/// interfaces; `is_listed` says what the runtime knows. Failures do not stop the others; the first
/// is returned.
///
/// Costs a list of the host's links and one of all processes, and a look into each sandbox whose
/// host end is missing.
pub async fn collect(
    netlink: &Netlink,
    data_dir: &Path,
    network: Network,
    is_listed: impl Fn(&Attachment) -> bool,
) -> Result<(), WiringError> {
    CallLock::tidy(data_dir)?;
    let ledger = Ledger::open_to_free(data_dir, network);
    let name = ledger.network().name();
    let reservations = ledger.reservations()?;
    let living = Living::observe(reservations.iter().filter_map(|held| held.sandbox.as_ref()));
    let links = Links::list(netlink).await?;
    let interfaces = links.of(&ledger);
    let mut failure = None;
    for held in &reservations {
        let Some(attachment) = held.holder.attachment(name) else { continue };
        let listed = is_listed(&attachment);
        let mut interface = interfaces.of(held).await;
        if interface == Interface::There && !listed && is_half_made(held).await {
            interface = Interface::HalfMade;
        }
        let evidence = Evidence {
            sandbox: held.sandbox.as_ref(),
            interface,
            runtime: if listed { Runtime::Lists } else { Runtime::DoesNotList },
            age: held.age(),
        };
        let done = match living.judge(&evidence) {
            Life::Unwired if interface == Interface::HalfMade => {
                remove(netlink, &ledger, held, Reason::Unwired).await
            }
            Life::Unwired => free_unwired(netlink, &ledger, held).await,
            Life::Deserted => remove(netlink, &ledger, held, Reason::Deserted).await,
            Life::Alive | Life::Gone | Life::Unknown => continue,
        };
        if let Err(error) = done {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Frees the very reservation `held` if its sandbox still lacks the interface and no call about the
/// attachment is under way. Returns whether it did.
pub async fn free_unwired(
    netlink: &Netlink,
    ledger: &Ledger,
    held: &Reservation,
) -> Result<bool, WiringError> {
    let Some(attachment) = held.holder.attachment(ledger.network().name()) else {
        return Ok(false);
    };
    let Some(_lock) = CallLock::try_to_free(ledger.data_dir(), &attachment)? else {
        return Ok(false);
    };
    if interface_of(netlink, ledger.network(), held).await != Interface::Missing {
        return Ok(false);
    }
    Ok(free(ledger, held, Reason::Unwired)?)
}

/// Removes the interface of the very reservation `held`, then frees its address, unless a call
/// about the attachment is under way. Returns whether it did.
async fn remove(
    netlink: &Netlink,
    ledger: &Ledger,
    held: &Reservation,
    reason: Reason,
) -> Result<bool, WiringError> {
    let name = ledger.network().name();
    let Some(attachment) = held.holder.attachment(name) else { return Ok(false) };
    let Some(_lock) = CallLock::try_to_free(ledger.data_dir(), &attachment)? else {
        return Ok(false);
    };
    // A call that is over may have made it meanwhile.
    let is_same = ledger.reservation(&held.holder)?.as_ref() == Some(held);
    if !is_same || reason == Reason::Unwired && !is_half_made(held).await {
        return Ok(false);
    }
    if detach(netlink, &attachment).await? {
        info!("network {name}: removed the interface of {}: {reason}", held.holder);
    }
    Ok(free(ledger, held, reason)?)
}

/// The host's links, listed once.
pub struct Links<'a> {
    netlink: &'a Netlink,
    names: HashSet<String>,
}

/// The interfaces of a network's containers.
pub struct Interfaces<'a> {
    links: &'a Links<'a>,
    network: &'a Network,
    /// True if the network has devices here. If not, another main plugin makes the interfaces, and
    /// only it knows what they are.
    is_connected: bool,
}

impl<'a> Links<'a> {
    /// Lists the host's links.
    pub async fn list(netlink: &'a Netlink) -> Result<Self, WiringError> {
        let links = netlink.links().await?;
        Ok(Self { netlink, names: links.into_iter().map(|link| link.name).collect() })
    }

    /// The interfaces of the containers in the ledger's network.
    pub fn of(&'a self, ledger: &'a Ledger) -> Interfaces<'a> {
        let network = ledger.network();
        let is_connected = SegmentState::read(ledger.data_dir(), network.name()).is_some();
        Interfaces { links: self, network, is_connected }
    }
}

impl Interfaces<'_> {
    /// The interface that the address of `held` is for.
    pub async fn of(&self, held: &Reservation) -> Interface {
        let Some(attachment) = held.holder.attachment(self.network.name()) else {
            return Interface::Unseen;
        };
        if self.links.names.contains(&device::host_end(&attachment)) {
            Interface::There
        } else if self.is_connected {
            interface_of(self.links.netlink, self.network, held).await
        } else {
            Interface::Unseen
        }
    }
}

/// The interface that the address of `held` is for: the veth whose host end is named after the
/// attachment, or one of that name in the sandbox that has the address or its MAC, as another main
/// plugin makes it. Missing only if both could be looked for.
pub async fn interface_of(netlink: &Netlink, network: &Network, held: &Reservation) -> Interface {
    let Some(attachment) = held.holder.attachment(network.name()) else { return Interface::Unseen };
    if !matches!(netlink.link(&device::host_end(&attachment)).await, Ok(None)) {
        return Interface::There;
    }
    let Some((inside, ifname)) = enter(held) else { return Interface::Unseen };
    let link = match inside.link(ifname.as_str()).await {
        Ok(Some(link)) => link,
        Ok(None) => return Interface::Missing,
        Err(_) => return Interface::Unseen,
    };
    let own = network.addresses(held.pool, held.host);
    if own.is_some_and(|own| link.mac == Some(own.mac)) {
        return Interface::There;
    }
    match has_address(&inside, &link, held).await {
        Some(true) => Interface::There,
        // It is another attachment's of the same sandbox.
        Some(false) => Interface::Missing,
        None => Interface::Unseen,
    }
}

/// Returns whether the interface in the sandbox is down and without the address: it is set up and
/// given its address last, in one message.
async fn is_half_made(held: &Reservation) -> bool {
    let Some((inside, ifname)) = enter(held) else { return false };
    let Ok(Some(link)) = inside.link(ifname.as_str()).await else { return false };
    !link.up && has_address(&inside, &link, held).await == Some(false)
}

/// Returns whether the interface has an address of the reservation's; `None` if that cannot be
/// told.
async fn has_address(inside: &Netlink, link: &Link, held: &Reservation) -> Option<bool> {
    let found = inside.addresses(link.index).await.ok()?;
    Some(found.iter().any(|address| held.addresses.contains(&address.ip())))
}

/// A connection to the kernel in the very sandbox that was noted, and the interface's name there.
fn enter(held: &Reservation) -> Option<(Netlink, &IfName)> {
    let Holder::Attachment { ifname, .. } = &held.holder else { return None };
    let sandbox = held.sandbox.as_ref()?;
    let netns = Netns::open(&sandbox.netns).ok()?;
    if Some(netns.identity()) != sandbox.identity {
        return None;
    }
    Some((Netlink::open_in(&netns, Entry::NewThread).ok()?, ifname))
}
