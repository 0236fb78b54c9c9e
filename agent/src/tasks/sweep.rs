//! The sweep: addresses of containers that are gone without a DEL.
//!
//! A container counts as gone when nothing of its network namespace is left, at two searches with a
//! grace period between them. A path that leads elsewhere proves nothing by itself: the namespace
//! may live on in a process or under another path. An address is freed after the same time if its
//! sandbox lives and lacks the interface, unless a call is under way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use weft_allocator::identities;
use weft_allocator::liveness::{Evidence, Life, Living};
use weft_allocator::release::{Reason, free};
use weft_cluster::networks;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::NetworkName;
use weft_wiring::collect::{Interfaces, Links, free_unwired};
use weft_wiring::{CallLock, Host, WiringError};

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
            if let Err(error) = CallLock::tidy(&host.config().data_dir) {
                warn!("removing what calls have left: {error}");
            }
            suspects
        };
        suspects =
            off_thread::run(|| "searching for containers that are gone".to_owned(), work).await;
    }
}

/// Since when each reservation has looked like one that is left over. One that was made again
/// begins again.
type Suspects = HashMap<(NetworkName, Holder), (Instant, Reservation)>;

async fn search(host: &Host, grace: Duration, suspects: &mut Suspects) -> Result<(), WiringError> {
    let mut ledgers = vec![];
    for network in networks::all_cached(&host.config().data_dir)? {
        let ledger = Ledger::open_to_free(&host.config().data_dir, network);
        if host.cluster().is_single_node() {
            identities::expire(host.cluster(), &ledger).await?;
        }
        let reservations = ledger.reservations()?;
        ledgers.push((ledger, reservations));
    }
    let all = ledgers.iter().flat_map(|(_, reservations)| reservations);
    let living = Living::observe(all.filter_map(|reservation| reservation.sandbox.as_ref()));
    let links = Links::list(host.netlink()).await?;
    let mut seen = Suspects::new();
    for (ledger, reservations) in &ledgers {
        let interfaces = links.of(ledger);
        for held in reservations {
            let life = judge(&interfaces, &living, held).await;
            if !matches!(life, Life::Gone | Life::Unwired) {
                continue;
            }
            let key = (ledger.network().name().clone(), held.holder.clone());
            let before = suspects.get(&key).filter(|(_, suspect)| suspect == held);
            let since = before.map_or_else(Instant::now, |(since, _)| *since);
            if before.is_none() || since.elapsed() < grace {
                seen.insert(key, (since, held.clone()));
                continue;
            }
            // This very one: the attachment may have been made again since.
            if life == Life::Gone {
                free(ledger, held, Reason::Swept)?;
            } else if !free_unwired(host.netlink(), ledger, held).await? {
                // A call is under way, or it is not left over any more.
                seen.insert(key, (since, held.clone()));
            }
        }
    }
    // A holder that was seen alive, or is freed, begins again.
    *suspects = seen;
    Ok(())
}

/// Judges whether the container that the reservation was made for is there, with its interface.
async fn judge(interfaces: &Interfaces<'_>, living: &Living, held: &Reservation) -> Life {
    if !matches!(held.holder, Holder::Attachment { .. }) {
        return Life::Alive;
    }
    let interface = interfaces.of(held).await;
    let sandbox = held.sandbox.as_ref();
    living.judge(&Evidence { sandbox, interface, ..Evidence::default() })
}
