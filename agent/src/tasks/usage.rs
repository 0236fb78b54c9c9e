//! Reports of this node about the use of its blocks, for people who ask any node.
//!
//! A report is written when a count has changed, and not again for some time: containers come and
//! go, and each report is a write of the cluster. Nothing is removed at the end: a report of a node
//! that is down is out of date, and shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::debug;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_allocator::AllocatorError;
use weft_cluster::{Cluster, ClusterError, networks};
use weft_inspect::usage::counts;
use weft_ledger::Ledger;
use weft_model::{Block, BlockCounts, NetworkId, NetworkName, Usage, UsageRecord};
use weft_wiring::Host;

use crate::{Agent, off_thread, pace};

/// Least time between two reports of a node.
const INTERVAL: Duration = Duration::from_secs(10);

/// All nodes together report once in this time at most. In clusters of more than a hundred nodes
/// each waits longer.
const IN_CLUSTER: Duration = Duration::from_millis(100);

/// Changes come in bursts: those within this time are counted together.
const BURST: Duration = Duration::from_millis(500);

/// Limit for the first search for networks.
const FIRST: Duration = Duration::from_secs(5);

/// Delay before a report that failed is repeated.
const RETRY: Duration = Duration::from_secs(10);

/// Interval of looks at the report in the store, which may have been restored or removed with the
/// node.
const CHECK: Duration = Duration::from_secs(300);

/// Networks to count again.
#[derive(Debug, PartialEq, Eq)]
enum Changed {
    All,
    These(BTreeSet<NetworkName>),
}

impl Changed {
    fn add(&mut self, network: Option<NetworkName>) {
        match (&mut *self, network) {
            (Self::These(names), Some(network)) => drop(names.insert(network)),
            (Self::These(_), None) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Reports the use of the blocks of networks that are `known` on this node, for as long as the
/// future is polled. A single node has no other that would read it.
pub async fn run(agent: &Agent, mut known: watch::Receiver<BTreeSet<NetworkId>>) {
    if agent.host.cluster().is_single_node() {
        return std::future::pending().await;
    }
    let mut reservations = agent.reservations.subscribe();
    let mut own_blocks = agent.here.subscribe();
    // Before the first search for networks there seem to be none.
    let _ = tokio::time::timeout(FIRST, known.changed()).await;
    let mut names = names_of(&mut known);
    let mut usage = Usage::new();
    let mut changed = Changed::All;
    // The report in the store, as it was read or written last.
    let mut reported = None;
    let mut check = Instant::now();
    loop {
        let (host, names_now) = (agent.host.clone(), names.clone());
        let counting = async move { count(&host, names_now, usage, changed) };
        usage = off_thread::run(|| "counting addresses in use".to_owned(), counting).await;
        changed = Changed::These(BTreeSet::new());
        let is_check = check <= Instant::now();
        if is_check {
            check = Instant::now() + pace::interval(agent, CHECK);
        }
        let pause = match report(agent.host.cluster(), &usage, &mut reported, is_check).await {
            Ok(true) => interval(agent),
            Ok(false) => Duration::ZERO,
            Err(error) => {
                debug!("reporting the addresses in use: {error}; will retry in {RETRY:?}");
                check = check.min(Instant::now() + RETRY);
                RETRY
            }
        };
        let earliest = Instant::now() + pause;
        let mut due = check.max(earliest);
        loop {
            tokio::select! {
                network = reservations.next() => changed.add(network),
                network = own_blocks.next() => changed.add(network),
                Ok(()) = known.changed() => {
                    let now = names_of(&mut known);
                    now.difference(&names).for_each(|name| changed.add(Some(name.clone())));
                    names = now;
                }
                () = tokio::time::sleep_until(due) => break,
            }
            due = due.min(earliest.max(Instant::now() + BURST));
        }
    }
}

/// The time between two reports.
fn interval(agent: &Agent) -> Duration {
    let members = agent.watcher.members().borrow().as_ref().map_or(1, |members| members.len());
    between_reports(members)
}

fn between_reports(nodes: usize) -> Duration {
    INTERVAL.max(IN_CLUSTER.saturating_mul(u32::try_from(nodes).unwrap_or(u32::MAX)))
}

/// Writes the report if it is another than the store has. Returns whether it did. With `is_check`
/// the store is asked what it has.
async fn report(
    cluster: &Cluster,
    usage: &Usage,
    reported: &mut Option<Usage>,
    is_check: bool,
) -> Result<bool, ClusterError> {
    if is_check {
        *reported = cluster.own_usage().await?.map(|record| record.networks);
    }
    if reported.as_ref() == Some(usage) {
        return Ok(false);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let record = UsageRecord { counted: now.as_secs(), networks: usage.clone() };
    let is_written = cluster.publish_usage(&record).await?;
    *reported = is_written.then(|| usage.clone());
    Ok(true)
}

/// The names of the networks that are known on this node.
fn names_of(known: &mut watch::Receiver<BTreeSet<NetworkId>>) -> BTreeSet<NetworkName> {
    known.borrow_and_update().iter().map(|id| id.name.clone()).collect()
}

/// Counts the networks that have `changed` again. One whose files cannot be read keeps its counts.
fn count(host: &Host, names: BTreeSet<NetworkName>, mut usage: Usage, changed: Changed) -> Usage {
    usage.retain(|name, _| names.contains(name));
    let again = match changed {
        Changed::All => names,
        Changed::These(changed) => changed.intersection(&names).cloned().collect(),
    };
    for name in again {
        match count_one(host, &name) {
            Ok(counts) if counts.is_empty() => drop(usage.remove(&name)),
            Ok(counts) => drop(usage.insert(name, counts)),
            Err(error) => debug!("network {name}: counting its addresses: {error}"),
        }
    }
    usage
}

fn count_one(
    host: &Host,
    name: &NetworkName,
) -> Result<BTreeMap<Block, BlockCounts>, AllocatorError> {
    let data_dir = &host.config().data_dir;
    match networks::cached(data_dir, name)? {
        Some(network) => counts(&Ledger::open(data_dir, network)?),
        None => Ok(BTreeMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_large_clusters_report_less_often() {
        assert_eq!(between_reports(1), Duration::from_secs(10));
        assert_eq!(between_reports(100), Duration::from_secs(10));
        assert_eq!(between_reports(1000), Duration::from_secs(100));
    }

    #[test]
    fn all_networks_are_counted_after_signals_were_lost() {
        let name = |name: &str| NetworkName::new(name).unwrap();
        let mut changed = Changed::These(BTreeSet::new());
        changed.add(Some(name("red")));
        changed.add(Some(name("red")));
        assert_eq!(changed, Changed::These(BTreeSet::from([name("red")])));
        changed.add(None);
        changed.add(Some(name("blue")));
        assert_eq!(changed, Changed::All);
    }
}
