//! The sweep: addresses of containers that are gone without a DEL.
//!
//! A container counts as gone when nothing of its network namespace is left, at two searches with a
//! grace period between them. A path that leads elsewhere proves nothing by itself: the namespace
//! may live on in a process or under another path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use weft_allocator::liveness::{Evidence, Life, Living};
use weft_allocator::release::{Reason, free};
use weft_allocator::{AllocatorError, identities};
use weft_cluster::networks;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Network, NetworkName};
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
            if let Err(error) = search(&host, grace, &mut suspects).await {
                warn!("searching for containers that are gone: {error}");
            }
            suspects
        };
        suspects =
            off_thread::run(|| "searching for containers that are gone".to_owned(), work).await;
    }
}

type Suspects = HashMap<(NetworkName, Holder), Instant>;

async fn search(
    host: &Host,
    grace: Duration,
    suspects: &mut Suspects,
) -> Result<(), AllocatorError> {
    let mut ledgers = vec![];
    for network in networks::all_cached(&host.config().data_dir)? {
        let ledger = Ledger::open(&host.config().data_dir, network)?;
        if host.cluster().is_single_node() {
            identities::expire(host.cluster(), &ledger).await?;
        }
        let reservations = ledger.reservations()?;
        ledgers.push((ledger, reservations));
    }
    let all = ledgers.iter().flat_map(|(_, reservations)| reservations);
    let living = Living::observe(all.filter_map(|reservation| reservation.sandbox.as_ref()));
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
                // This very one: the attachment may have been made again since.
                free(ledger, reservation, Reason::Swept)?;
            } else {
                seen.insert(key, since);
            }
        }
    }
    // A holder that was seen alive, or is freed, begins again.
    *suspects = seen;
    Ok(())
}

/// Returns whether nothing is left of the container that the reservation was made for.
async fn is_gone(
    host: &Host,
    network: &Network,
    reservation: &Reservation,
    living: &Living,
) -> bool {
    let Some(attachment) = reservation.holder.attachment(network.name()) else { return false };
    let evidence = Evidence { sandbox: reservation.sandbox.as_ref(), ..Evidence::default() };
    if living.judge(&evidence) != Life::Gone {
        return false;
    }
    let has_host_end = host.is_attached(&attachment).await;
    living.judge(&Evidence { has_host_end, ..evidence }) == Life::Gone
}
