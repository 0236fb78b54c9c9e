//! The sweep: addresses of containers that are gone without a DEL.
//!
//! A container counts as gone when nothing of its network namespace is left, at two looks with a
//! grace period between them. A path that leads elsewhere proves nothing by itself: the namespace
//! may live on in a process or under another path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use weft_allocator::liveness::Living;
use weft_allocator::{AllocatorError, sticky};
use weft_cluster::networks;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Attachment, Network, NetworkName, device};
use weft_wiring::Host;

use crate::off_thread;

/// Sweeps for as long as the future is polled.
pub async fn run(host: Arc<Host>) {
    let grace = host.config().sweep_grace;
    let mut suspects = Suspects::new();
    loop {
        tokio::time::sleep(grace / 2).await;
        let host = host.clone();
        let work = async move {
            if let Err(error) = look(&host, grace, &mut suspects).await {
                warn!("searching for containers that are gone: {error}");
            }
            suspects
        };
        suspects =
            off_thread::run(|| "searching for containers that are gone".to_owned(), work).await;
    }
}

type Suspects = HashMap<(NetworkName, Holder), Instant>;

async fn look(host: &Host, grace: Duration, suspects: &mut Suspects) -> Result<(), AllocatorError> {
    let mut ledgers = vec![];
    for network in networks::all_cached(&host.config().data_dir)? {
        let ledger = Ledger::open(&host.config().data_dir, network)?;
        if host.cluster().is_single_node() {
            sticky::expire(host.cluster(), &ledger).await?;
        }
        let reservations = ledger.reservations()?;
        ledgers.push((ledger, reservations));
    }
    let all = ledgers.iter().flat_map(|(_, reservations)| reservations);
    let living = Living::look(all.filter_map(|reservation| reservation.sandbox.as_ref()));
    let mut seen = Suspects::new();
    for (ledger, reservations) in &ledgers {
        let network = ledger.network();
        for reservation in reservations {
            if !is_gone(host, network, reservation, &living).await {
                continue;
            }
            let key = (network.name().clone(), reservation.holder.clone());
            let since = *suspects.get(&key).unwrap_or(&Instant::now());
            if suspects.contains_key(&key) && since.elapsed() >= grace {
                free(ledger, network, reservation)?;
            } else {
                seen.insert(key, since);
            }
        }
    }
    // What was seen alive, or is freed, begins anew.
    *suspects = seen;
    Ok(())
}

/// Whether nothing is left of the namespace that the reservation was made for. In doubt it lives.
async fn is_gone(
    host: &Host,
    network: &Network,
    reservation: &Reservation,
    living: &Living,
) -> bool {
    let Holder::Attachment { container_id, ifname } = &reservation.holder else { return false };
    let Some(sandbox) = &reservation.sandbox else { return false };
    if living.has(sandbox) {
        return false;
    }
    let attachment = Attachment {
        network: network.name().clone(),
        container_id: container_id.clone(),
        ifname: ifname.clone(),
    };
    // The kernel removes both ends of a veth with the namespace of one.
    matches!(host.netlink().link(&device::host_end(&attachment)).await, Ok(None))
}

fn free(
    ledger: &Ledger,
    network: &Network,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    // This very one: the attachment may have been made anew since.
    if ledger.release_exactly(reservation)? {
        info!(
            "network {}: freed {} of {}, whose sandbox is gone without a DEL",
            network.name(),
            reservation.addresses.first().map_or_else(String::new, ToString::to_string),
            reservation.holder
        );
    }
    Ok(())
}
