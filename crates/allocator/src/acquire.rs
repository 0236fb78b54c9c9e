//! An address for a holder.
//!
//! While an owned block has room this is a matter of the node's own files. When it has not, one
//! process of the node claims a block and the others wait for it: a burst of containers on a fresh
//! node takes one block, not one each. When there is none to claim, an address that was borrowed
//! and is not given back yet is taken over, or another node lends one.

use log::{debug, info};
use weft_cluster::{Cluster, ClusterError};
use weft_ledger::ledger::{About, Outcome, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{HostNumber, Pool};

use crate::claim::{Claimed, Target};
use crate::error::{Usage, shown};
use crate::{AllocatorError, borrowing, identities, ownership, returns};

/// Largest pool whose addresses are counted for an error.
const LARGEST_COUNT: u64 = 1 << 20;

/// Gives `holder` an address of the ledger's network, claiming a block or borrowing the address if
/// no own block has it.
///
/// That can take a while. The caller may be gone by then, and its DEL may have come before: then
/// `still_wanted` says no, and nothing is reserved.
pub async fn reserve(
    cluster: &Cluster,
    mut ledger: Ledger,
    holder: &Holder,
    want: Want,
    about: About<'_>,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Reservation, AllocatorError> {
    let name = ledger.network().name().clone();
    if let Ok(reservation) = attempt(&ledger, holder, want, about)? {
        return Ok(reservation);
    }
    // Addresses of identities that have not come back are free.
    // Room that it makes is welcome; that it cannot tell the store is no reason to fail here.
    if let Err(error) = identities::expire(cluster, &ledger).await {
        debug!("network {name}: {error}");
    }
    let lock = ownership::lock_claims(cluster, &ledger).await?;
    // A claim may bring only what another process takes at once, so this can go round.
    loop {
        if !still_wanted() {
            return Err(AllocatorError::Unwanted {
                holder: Box::new(holder.clone()),
                network: name,
            });
        }
        let target = match attempt(&ledger, holder, want, about)? {
            Ok(reservation) => return Ok(reservation),
            Err(target) => target,
        };
        let (renewed, claimed) = ownership::claim(cluster, ledger, target, &lock).await?;
        ledger = renewed;
        let failure = match claimed {
            Claimed::Own(block) => {
                info!("network {name}: block {block} is this node's now");
                continue;
            }
            Claimed::Contended => return Err(ClusterError::Contended { network: name }.into()),
            Claimed::Exhausted { nodes, .. } => {
                let usage = Box::new(usage(&ledger, nodes)?);
                let (node, reason) = (cluster.node().clone(), String::new());
                AllocatorError::Exhausted { network: name.clone(), node, usage, reason }
            }
            Claimed::OwnedBy(owner) => {
                let address = shown(&ledger, want);
                AllocatorError::AddressElsewhere {
                    address,
                    network: name.clone(),
                    owner,
                    reason: String::new(),
                    settled: false,
                }
            }
        };
        drop(lock);
        // What killed processes left is the agent's to clean up; there may be none.
        if let Err(error) = returns::clean(cluster, &ledger).await {
            debug!("network {name}: {error}");
        }
        if let Some(reservation) = returns::take_over(cluster, &ledger, holder, want, about).await?
        {
            return Ok(reservation);
        }
        return borrowing::borrow(cluster, &ledger, holder, want, about, failure, still_wanted)
            .await;
    }
}

/// The shares of the network that `nodes` nodes have, this one perhaps among them.
fn usage(ledger: &Ledger, nodes: usize) -> Result<Usage, AllocatorError> {
    let own = ledger.blocks()?.len() as u64;
    let pools = || ledger.network().pools().map(|(_, pool)| pool);
    Ok(Usage {
        pools: pools().map(|pool| (pool.subnets().collect(), count(pool, 0))).collect(),
        blocks: pools().map(|pool| count(pool, pool.block_bits().get())).sum(),
        own,
        held: ledger.counts()?.reserved,
        others: nodes.saturating_sub(usize::from(own > 0)),
    })
}

/// Count of the aligned ranges of 2^`bits` addresses in which a pool has an address to give. A pool
/// that is too large to be gone through is taken as a whole.
fn count(pool: &Pool, bits: u8) -> u64 {
    let (first, last) = (pool.first().get() >> bits, pool.last().get() >> bits);
    if last - first > LARGEST_COUNT {
        return last - first + 1;
    }
    let next = |host: &HostNumber| {
        pool.next_assignable(HostNumber::new(((host.get() >> bits) + 1) << bits))
    };
    std::iter::successors(pool.next_assignable(pool.first()), next).count() as u64
}

/// Asks the ledger; what is missing for a yes comes back as what to claim.
fn attempt(
    ledger: &Ledger,
    holder: &Holder,
    want: Want,
    about: About<'_>,
) -> Result<Result<Reservation, Target>, AllocatorError> {
    let network = || ledger.network().name().clone();
    match ledger.reserve(holder, want, about)? {
        Outcome::Held(reservation) => Ok(Ok(reservation)),
        Outcome::NoRoom => Ok(Err(Target::AnyBlock)),
        Outcome::NotOwned(block) => Ok(Err(Target::Exactly(block))),
        Outcome::Taken(holder) => {
            let address = shown(ledger, want);
            Err(AllocatorError::AddressTaken {
                address,
                network: network(),
                holder: Box::new(holder),
            })
        }
        Outcome::Stranded(reservation) => Err(AllocatorError::Stranded {
            holder: Box::new(holder.clone()),
            address: reservation.addresses.first().map_or_else(String::new, ToString::to_string),
            network: network(),
        }),
        Outcome::Withheld => Err(AllocatorError::AddressWithheld {
            address: shown(ledger, want),
            network: network(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;
    use weft_cluster::environment::Real;
    use weft_model::pool::{FamilyRecord, PoolRecord};
    use weft_model::{ContainerId, IfName, NetworkSpec};
    use weft_store::LocalStore;

    use crate::address::{self, AddressRequest};

    use super::*;

    #[tokio::test]
    async fn a_network_without_room_is_described_by_its_subnet_and_its_owners() {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(LocalStore::new(dir.path().join("store")));
        let environment = Arc::new(Real::default());
        let cluster =
            Cluster::simulated(store, "a".parse().unwrap(), "machine".into(), environment);
        let ipv4 = Some(FamilyRecord::new("10.9.0.0/29".parse().unwrap()));
        let pools = vec![PoolRecord { ipv4, ..PoolRecord::default() }];
        let request = |id: &str| AddressRequest {
            network: "red".parse().unwrap(),
            spec: NetworkSpec { pools: pools.clone(), ..NetworkSpec::default() },
            holder: Holder::Attachment {
                container_id: ContainerId::new(id).unwrap(),
                ifname: IfName::new("eth0").unwrap(),
            },
            wanted: vec![],
            sandbox: None,
            sticky: None,
        };
        let acquire = async |id: &str| {
            let request = request(id);
            address::acquire(dir.path(), || Ok(cluster.clone()), &request, &|| true).await
        };
        for i in 0..5 {
            acquire(&format!("c{i}")).await.unwrap();
        }
        let error = acquire("late").await.unwrap_err();
        assert!(error.is_transient() && !error.is_configuration());
        assert_eq!(
            error.to_string(),
            "network red has no free address for node a: 10.9.0.0/29 (5 addresses): all 5 blocks \
             are this node's, which holds 5 addresses of them; try again when containers have \
             gone, or add a subnet: `weftctl network extend red --subnet ...`"
        );
    }
}
