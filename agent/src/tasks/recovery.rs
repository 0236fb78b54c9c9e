//! Records of this node, written back into a cluster store that was emptied.
//!
//! Each agent writes the definitions, blocks, loans and identities that its own files have, notes
//! the store's new identity, and registers again. Nobody claims until that has had its time: what
//! another node has not written back yet would look free.

use std::time::Duration;

use log::{info, warn};
use weft_allocator::recovery;
use weft_cluster::networks;
use weft_ledger::Ledger;
use weft_wiring::{Host, WiringError};

use crate::{Agent, off_thread};

/// Time for all agents to notice and to write back. Each notices when it next renews its lease.
pub const TIME: Duration = Duration::from_secs(20);

/// Writes back all that is this node's own.
pub async fn write_back(agent: &Agent) -> Result<(), WiringError> {
    let host = agent.host.clone();
    let work = async move { write_back_networks(&host).await };
    off_thread::run(|| "writing back what the store has lost".to_owned(), work).await
}

async fn write_back_networks(host: &Host) -> Result<(), WiringError> {
    let (cluster, data_dir) = (host.cluster(), &host.config().data_dir);
    let id = cluster.begin_recovery().await?;
    let mut failure = None;
    for network in networks::all_cached(data_dir)? {
        let name = network.name().clone();
        let ledger = Ledger::open(data_dir, network)?;
        match recovery::write_back(cluster, &ledger).await {
            Ok(()) => info!("network {name}: what is this node's is in the store again"),
            Err(error) => {
                warn!("network {name}: {error}");
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(cluster.join_store(id)?),
    }
}
