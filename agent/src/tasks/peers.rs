//! The peers of one network that the kernel must know.
//!
//! A change in the store programs the blocks and addresses that it is about. Everything is compared
//! with a dump of the kernel's tables at the start, when a device has changed, and on a timer whose
//! interval grows with what a comparison costs.

use std::time::{Duration, Instant};

use log::{info, warn};
use tokio::sync::watch;
use weft_cluster::watcher;
use weft_datapath::peers::PeerTable;
use weft_model::{NetworkId, NetworkName};
use weft_wiring::{SegmentState, WiringError};

use crate::{Agent, off_thread};

/// Least interval between comparisons of everything without a reason.
const SLOW: Duration = Duration::from_secs(30);

/// The interval between two comparisons, in times that one takes: one in 500 is 0.2 % of a core.
const REST: u32 = 500;

/// Delay before a failed pass is repeated. It doubles with each failure, up to [`LONGEST_RETRY`].
const RETRY: Duration = Duration::from_secs(2);

/// Longest delay before a failed pass is repeated.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The devices of a network, and the number of checks that had a reason.
pub type Made = Option<(u64, SegmentState)>;

/// The tables that the kernel is known to have.
struct Programmed {
    devices: (u64, SegmentState),
    table: PeerTable,
}

/// Keeps the peers of network `id` current for as long as the future is polled. `made` tells the
/// devices, and how often they were checked for a reason.
pub async fn keep(agent: Agent, id: NetworkId, mut made: watch::Receiver<Made>) {
    if agent.host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    let mut members = agent.watcher.members();
    let mut view = agent.watcher.network(&id);
    let name = id.name;
    let mut programmed: Option<Programmed> = None;
    let mut here = agent.here.subscribe();
    let mut due = Instant::now() + SLOW;
    let mut retry = RETRY;
    loop {
        let known = (
            members.borrow_and_update().clone(),
            view.borrow_and_update().clone(),
            made.borrow_and_update().clone(),
        );
        // While something is unknown there is nothing to do but to wait for it.
        let mut pause = None;
        if let (Some(members), Some(view), Some(devices)) = known {
            if due <= Instant::now() {
                programmed = None;
            }
            let known = programmed.take().filter(|p| p.devices == devices).map(|p| p.table);
            let is_full = known.is_none();
            let permit = if is_full { agent.heavy.start().await } else { None };
            let (host, state) = (agent.host.clone(), devices.1.clone());
            let started = Instant::now();
            let work =
                async move { host.program_peers(&state, &view, &members, known.as_ref()).await };
            let what = || format!("network {name}: programming peers");
            let passed = off_thread::run(what, work).await;
            drop(permit);
            let failed = match passed {
                Ok((report, table)) => {
                    if report.any() {
                        info!("network {name}: {report}");
                    }
                    // Refused entries are compared again soon.
                    let failed = report.failed > 0;
                    if !failed {
                        programmed = Some(Programmed { devices, table });
                    }
                    failed
                }
                Err(error) => {
                    report(&name, &error, retry);
                    true
                }
            };
            if failed {
                due = Instant::now() + retry;
                retry = (retry * 2).min(LONGEST_RETRY);
            } else if is_full {
                due = Instant::now() + (started.elapsed() * REST).max(SLOW);
                retry = RETRY;
            }
            pause = Some(due.saturating_duration_since(Instant::now()));
        }
        let timer = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watcher::changed(&mut members) => {}
            () = watcher::changed(&mut view) => {}
            changed = made.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = here.changed(&name) => {}
            () = timer => {}
        }
    }
}

fn report(name: &NetworkName, error: &WiringError, retry: Duration) {
    warn!("network {name}: {error}; its peers are programmed again in {} s", retry.as_secs());
}
