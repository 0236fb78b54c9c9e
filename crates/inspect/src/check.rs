//! Compares store, files and kernel of this node, and puts differences right.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::containers::{Containers, Links, host_end, links};
use crate::cures;
use crate::difference::{Difference, Fix, Kind};
use crate::records::{Damaged, Files, Records};
use weft_allocator::liveness::{Interface, Life};
use weft_cluster::{ClusterError, networks};
use weft_datapath::link::Link;
use weft_datapath::ports::{self, ClosedPort};
use weft_files::FileError;
use weft_ledger::layout::NetworkDir;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Network, NetworkName, device};

use weft_wiring::collect::{free_unwired, interface_of};
use weft_wiring::{CallLock, Host, SegmentState, WiringError};

/// Pause between two passes: work that is under way in the first is over in the second.
const BETWEEN_PASSES: Duration = Duration::from_millis(1500);

/// Result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Differences that were put right.
    pub fixed: Vec<Difference>,
    /// Differences that are there.
    pub left: Vec<Difference>,
    /// Errors met while putting others right, in words.
    pub failures: Vec<String>,
}

/// Compares store, files and kernel for the network called `name`, and puts right what `fixing`
/// allows.
pub async fn check(
    host: &Host,
    name: &NetworkName,
    fixing: Fixing,
) -> Result<Checked, WiringError> {
    let found = compare_twice(host, name).await?;
    let fixable = found.iter().filter(|difference| difference.fix != Fix::None);
    let mut todo: Vec<Fix> = vec![];
    for difference in fixable {
        if !todo.contains(&difference.fix) {
            todo.push(difference.fix.clone());
        }
    }
    if fixing == Fixing::No || todo.is_empty() {
        return Ok(Checked { left: found, ..Checked::default() });
    }
    let (mut done, mut failures) = (vec![], vec![]);
    for fix in todo {
        match cure(host, name, &fix).await {
            Ok(()) => done.push(fix),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let left = compare_twice(host, name).await?;
    let is_left = |difference: &Difference| left.iter().any(|left| left.is_again(difference));
    // Others that are not there any more went away by themselves.
    let fixed = found.into_iter().filter(|d| done.contains(&d.fix) && !is_left(d)).collect();
    Ok(Checked { fixed, left, failures })
}

/// The differences that two passes find.
async fn compare_twice(host: &Host, name: &NetworkName) -> Result<Vec<Difference>, WiringError> {
    let first = compare(host, name).await?;
    if first.is_empty() {
        return Ok(first);
    }
    host.cluster().environment().sleep(BETWEEN_PASSES).await;
    let second = compare(host, name).await?;
    Ok(second.into_iter().filter(|d| first.iter().any(|first| first.is_again(d))).collect())
}

async fn compare(host: &Host, name: &NetworkName) -> Result<Vec<Difference>, WiringError> {
    let data_dir = &host.config().data_dir;
    let network = match networks::cached(data_dir, name)? {
        Some(cached) => match host.cluster().network_unless_removed(&cached.id()).await {
            Ok(Some(_)) => cached,
            Ok(None) => return Ok(vec![network_gone(host, &cached)?]),
            Err(
                error @ (ClusterError::NotInStore { .. } | ClusterError::AnotherNetwork { .. }),
            ) => return Ok(vec![network_lost(&cached, &error)]),
            Err(error) => return Err(error.into()),
        },
        None => match host.cluster().network(name).await? {
            Some((stored, _)) => match unread_definition(data_dir, &stored)? {
                Some(difference) => return Ok(vec![difference]),
                None => stored,
            },
            None => return Ok(vec![]),
        },
    };
    let records = Records::read(host.cluster(), data_dir, &network).await?;
    let containers = Containers::read(links(host).await?, &records.files);
    // First what cannot be read: the rest is to be judged by it.
    let damaged = records.files.damaged.iter();
    let mut all: Vec<Difference> =
        damaged.map(|damaged| damaged_reservation(&network, damaged, &containers)).collect();
    all.extend(records.compare());
    if !records.damage.is_empty() {
        return Ok(all);
    }
    let state = SegmentState::read(data_dir, name);
    for reservation in &records.files.reservations {
        let found = compare_container(host, &records, reservation, state.as_ref(), &containers);
        all.extend(found.await);
    }
    if let Some(state) = &state {
        if !host.is_intact(state).await? {
            all.push(devices(state));
        }
        if state.lacks_address {
            all.push(host_address(state));
        }
        all.extend(compare_ports(host, &records, state, &containers.links).await?);
        all.extend(compare_entries(host, &records, state, &containers.links).await?);
    }
    Ok(all)
}

/// The difference of a network that this node has a ledger of, and whose cached definition is
/// damaged or missing: without it the ledger cannot be read, and says nothing of what it lacks.
fn unread_definition(data_dir: &Path, stored: &Network) -> Result<Option<Difference>, WiringError> {
    let dir = NetworkDir::new(data_dir, stored.name());
    let what = match weft_files::json::load::<Network>(&dir.definition()) {
        Err(error @ FileError::Damaged { .. }) => error.to_string(),
        read => {
            // One of another name counts as damaged too.
            let has_ledger =
                read?.is_some() || !weft_files::names_in(&dir.reservations())?.is_empty();
            if !has_ledger {
                return Ok(None);
            }
            format!("{} is missing or of another network", dir.definition().display())
        }
    };
    let remedy = "nothing else of the network can be compared until weftd, the next container or \
                  --fix has read it from the cluster store again";
    let difference = Difference::new(stored, Kind::DamagedFile, what, remedy);
    Ok(Some(Difference { fix: Fix::Define, ..difference }))
}

fn network_gone(host: &Host, network: &Network) -> Result<Difference, WiringError> {
    let ledger = Ledger::open(&host.config().data_dir, network.clone());
    let files = Files::read(&ledger?)?;
    let containers = files.reservations.iter();
    let containers = containers.filter(|r| matches!(r.holder, Holder::Attachment { .. }));
    let what = format!(
        "the network was removed, and this node still has it, with {} addresses held by \
         containers",
        containers.count()
    );
    let remedy = "delete these containers; weftd removes the network from this host then";
    Ok(Difference::new(network, Kind::NetworkGone, what, remedy))
}

fn network_lost(network: &Network, error: &ClusterError) -> Difference {
    let remedy = "start weftd here, if it does not run";
    Difference::new(network, Kind::NetworkGone, error.to_string(), remedy)
}

/// The difference of a reservation's container, if there is one.
async fn compare_container(
    host: &Host,
    records: &Records,
    reservation: &Reservation,
    state: Option<&SegmentState>,
    containers: &Containers,
) -> Option<Difference> {
    let attachment = reservation.holder.attachment(records.network.name())?;
    let (host_end, sandbox) = (device::host_end(&attachment), reservation.sandbox.as_ref()?);
    let found = |kind, what, remedy: &str| Difference {
        addresses: reservation.addresses.clone(),
        ..Difference::new(&records.network, kind, what, remedy)
    };
    let held = format!("{} is held by {}", reservation.shown(), reservation.holder);
    let netns = sandbox.netns.display();
    let life = containers.life(Some(sandbox), Some(&host_end));
    match (life, containers.links.get(&host_end), state) {
        (Life::Gone, ..) => {
            let what = format!("{held}, whose network namespace {netns} is gone");
            let remedy = "the runtime's GC or DEL frees it, and so does --fix";
            let fix = Fix::Release(Box::new(reservation.clone()));
            Some(Difference { fix, ..found(Kind::SandboxGone, what, remedy) })
        }
        (_, Some(link), Some(state)) if link.bridge != Some(state.bridge) => {
            let what =
                format!("{held}, whose host end {host_end} is no port of the network's bridge");
            let remedy = "weftd makes it one again, and so does --fix";
            let fix = Fix::Repair;
            Some(Difference { fix, ..found(Kind::Disconnected, what, remedy) })
        }
        (_, Some(_), Some(_)) if containers.is_deserted(reservation, &host_end) => {
            let what = format!("{held}, and no process is in its network namespace {netns}");
            let remedy = "if its runtime does not know it, the next GC of that runtime removes it";
            let is_note = true;
            Some(Difference { is_note, ..found(Kind::Deserted, what, remedy) })
        }
        (Life::Alive, None, Some(_))
            if interface_of(host.netlink(), &records.network, reservation).await
                == Interface::Missing
                && !CallLock::is_held(&host.config().data_dir, &attachment) =>
        {
            let what = format!("{held}, whose network namespace {netns} has no interface with it");
            let remedy = "the runtime's GC frees it, weftd after `sweep_grace`, and --fix now";
            let fix = Fix::ReleaseUnwired(Box::new(reservation.clone()));
            Some(Difference { fix, ..found(Kind::Unwired, what, remedy) })
        }
        _ => None,
    }
}

/// Ports of the bridge that are containers' and that no reservation stands behind.
async fn compare_ports(
    host: &Host,
    records: &Records,
    state: &SegmentState,
    links: &Links,
) -> Result<Vec<Difference>, WiringError> {
    let files = &records.files;
    let holders = files.reservations.iter().map(|reservation| &reservation.holder);
    let holders = holders.chain(files.damaged.iter().filter_map(|d| d.holder.as_ref()));
    let known: BTreeSet<String> =
        holders.filter_map(|holder| host_end(&records.network, holder)).collect();
    let unknown = links.values().filter(|link| {
        link.is("veth")
            && link.bridge == Some(state.bridge)
            && link.alias.starts_with("weft:")
            && !known.contains(&link.name)
    });
    let mut all = vec![];
    for link in unknown {
        let alias = link.alias.trim_start_matches("weft:");
        let whose = alias.split_once(" on network").map_or(alias, |(whose, _)| whose);
        // The MAC follows from the address where weft-ipam gave it. An address in a block of
        // this node's is weft-ipam's to give, and this one may be given to the next container.
        let mac = ports::other_ends_mac(host.netlink(), link).await?;
        let blocks = records.blocks.iter().map(|(block, _)| *block);
        let mut own = blocks.flat_map(|block| records.network.addresses_of(block));
        let used = own.find(|addresses| Some(addresses.mac) == mac);
        let host_end = &link.name;
        all.push(match used {
            Some(addresses) => Difference {
                addresses: addresses.iter().collect(),
                ..Difference::new(
                    &records.network,
                    Kind::Unreserved,
                    format!("{addresses} is used by {whose}, which holds no address ({host_end})"),
                    "another container can be given it: delete this one and start it again",
                )
            },
            None => Difference {
                is_note: true,
                ..Difference::new(
                    &records.network,
                    Kind::Unreserved,
                    format!("{whose} is attached and holds no address ({host_end})"),
                    "as it should be where another IPAM plugin, or none, gives addresses",
                )
            },
        });
    }
    Ok(all)
}

/// Ports of the bridge that are containers' and closed to their MACs.
async fn compare_entries(
    host: &Host,
    records: &Records,
    state: &SegmentState,
    links: &Links,
) -> Result<Vec<Difference>, WiringError> {
    let ports = links.values().filter(|link| {
        link.is("veth") && link.bridge == Some(state.bridge) && link.alias.starts_with("weft:")
    });
    let ports: Vec<Link> = ports.cloned().collect();
    let difference = |closed: ClosedPort| {
        let of_port = |held: &&Reservation| {
            host_end(&records.network, &held.holder).as_ref() == Some(&closed.port.name)
        };
        let held = records.files.reservations.iter().find(of_port);
        let alias = closed.port.alias.trim_start_matches("weft:");
        let whose = alias.split_once(" on network").map_or(alias, |(whose, _)| whose);
        let (remedy, fix) = if closed.lets_through.is_empty() {
            ("weftd opens it within half a minute, and so does --fix", Fix::Repair)
        } else {
            (
                "something has changed the interface's MAC: ask for one with runtimeConfig.mac \
                 instead",
                Fix::None,
            )
        };
        Difference {
            addresses: held.map(|held| held.addresses.clone()).unwrap_or_default(),
            fix,
            ..Difference::new(
                &records.network,
                Kind::Disconnected,
                format!("{whose} is cut off: {closed}"),
                remedy,
            )
        }
    };
    let closed = host.closed_ports(state, &ports).await?;
    Ok(closed.into_iter().map(difference).collect())
}

async fn cure(host: &Host, name: &NetworkName, fix: &Fix) -> Result<(), WiringError> {
    let data_dir = &host.config().data_dir;
    if *fix == Fix::Repair {
        let Some(state) = SegmentState::read(data_dir, name) else { return Ok(()) };
        let Some(state) = host.repair(&state).await? else { return Ok(()) };
        host.refresh_peers(&state).await?;
        return Ok(());
    }
    let network = match networks::cached(data_dir, name)? {
        Some(network) => Some(network),
        None => host.cluster().network(name).await?.map(|(network, _)| network),
    };
    let Some(network) = network else { return Ok(()) };
    if let Fix::ReleaseUnwired(held) = fix {
        free_unwired(host.netlink(), &Ledger::open_to_free(data_dir, network), held).await?;
        return Ok(());
    }
    Ok(cures::apply(host.cluster(), data_dir, &network, fix).await?)
}

/// Choice to put right what can be, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixing {
    /// Only compare.
    No,
    /// Put it right.
    Yes,
}

fn devices(state: &SegmentState) -> Difference {
    let vni = state.network.vni();
    let what = match state.vxlan {
        Some(_) => {
            let (bridge, vxlan) = (device::bridge(vni), device::vxlan(vni));
            format!(
                "bridge {bridge} or VXLAN device {vxlan} is missing, down or not as it was made"
            )
        }
        None => format!("bridge {} is missing, down or not as it was made", device::bridge(vni)),
    };
    let remedy = "weftd makes it again within half a minute, the next container or --fix at once";
    Difference { fix: Fix::Repair, ..Difference::new(&state.network, Kind::Devices, what, remedy) }
}

fn host_address(state: &SegmentState) -> Difference {
    let what = "this host has no address of its own: the one that it had became another node's, \
                and none is free";
    let remedy = "delete a container, or add a subnet with `weftctl network extend`; weftd takes \
                  an address then";
    Difference::new(&state.network, Kind::HostAddress, what.to_owned(), remedy)
}

/// The difference of a reservation that cannot be read.
fn damaged_reservation(
    network: &Network,
    damaged: &Damaged,
    containers: &Containers,
) -> Difference {
    let path = damaged.path.display();
    let host_end = damaged.holder.as_ref().and_then(|holder| host_end(network, holder));
    let life = containers.life(damaged.sandbox.as_ref(), host_end.as_deref());
    let (whose, remedy, fix) = match (&damaged.holder, life) {
        (Some(holder @ Holder::Attachment { .. }), Life::Gone) => (
            format!("that of {holder}, whose network namespace is gone"),
            "DEL of that container frees its address, and so does --fix",
            Fix::Discard(holder.clone()),
        ),
        (
            Some(holder @ Holder::Attachment { .. }),
            Life::Alive | Life::Unwired | Life::Deserted,
        ) => (
            format!("that of {holder}, which is alive"),
            "delete that container: DEL frees its address",
            Fix::None,
        ),
        (Some(holder @ Holder::Attachment { .. }), Life::Unknown) => (
            format!("that of {holder}"),
            "delete that container: DEL frees its address. If it is gone for certain, remove the \
             file and `index` as the operations guide says under damaged files",
            Fix::None,
        ),
        (holder, _) => (
            match holder {
                Some(holder) => format!("that of {holder}"),
                None => "its holder unknown".to_owned(),
            },
            "see the operations guide under damaged files",
            Fix::None,
        ),
    };
    let what = format!("reservation {path} cannot be read, {whose}");
    Difference {
        addresses: damaged.addresses.clone(),
        fix,
        ..Difference::new(network, Kind::DamagedReservation, what, remedy)
    }
}
