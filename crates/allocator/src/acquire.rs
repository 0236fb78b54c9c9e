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

use crate::claim::{Claimed, Target};
use crate::error::shown;
use crate::{AllocatorError, borrowing, identities, ownership, returns};

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
            Claimed::Exhausted { blocks, nodes } => {
                let node = cluster.node().clone();
                AllocatorError::Exhausted {
                    network: name.clone(),
                    node,
                    blocks,
                    nodes,
                    reason: String::new(),
                }
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
