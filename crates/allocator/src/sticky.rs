//! Sticky addresses: the same address for the same identity, on this or another node.
//!
//! Only an attachment that asks for this is known to the cluster: one key says which address its
//! identity has. While the address is kept on this node, nobody is asked.

use log::{info, warn};
use weft_cluster::Cluster;
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::Sticky;

use crate::identities::Known;
use crate::{AllocatorError, acquire, identities};

/// Gives `holder` the address that its identity has, or else one that it has from now on.
pub async fn reserve(
    cluster: &Cluster,
    ledger: Ledger,
    holder: &Holder,
    sticky: &Sticky,
    about: About<'_>,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Reservation, AllocatorError> {
    let ledger_network = ledger.network().clone();
    let name = ledger_network.name().clone();
    let known = identities::known(cluster, &ledger_network.id(), sticky).await?;
    if let Known::Anothers = known {
        warn!(
            "network {name}: the id {} of {} is another identity's; it keeps no address",
            sticky.id(),
            sticky.identity
        );
        let about = About { sticky: None, ..about };
        return acquire::reserve(cluster, ledger, holder, Want::Any, about, still_wanted).await;
    }
    if let Known::Address(_, record) = &known {
        let want = Want::Exactly(record.pool, record.host);
        let again = reopen(&ledger)?;
        match acquire::reserve(cluster, again, holder, want, about, still_wanted).await {
            Ok(reservation) => return Ok(reservation),
            Err(AllocatorError::AddressTaken { holder: other, address, network }) => {
                if identities::is_itself(&ledger, &other, Some(sticky))? {
                    let identity = sticky.identity.clone();
                    return Err(AllocatorError::StickyInUse {
                        identity,
                        address,
                        network,
                        holder: other.to_string(),
                    });
                }
                info!("network {name}: {} has lost {address} to {other}", sticky.identity);
            }
            Err(error @ AllocatorError::AddressElsewhere { settled: true, .. }) => {
                info!("network {name}: {} has lost its address: {error}", sticky.identity);
            }
            Err(AllocatorError::AddressElsewhere { address, network, owner, reason, .. }) => {
                let identity = sticky.identity.clone();
                return Err(AllocatorError::StickyElsewhere {
                    identity,
                    address,
                    network,
                    owner,
                    reason,
                });
            }
            Err(AllocatorError::AddressWithheld { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let reservation =
        acquire::reserve(cluster, ledger, holder, Want::Any, about, still_wanted).await?;
    identities::remember(cluster, &ledger_network, &known, sticky, &reservation).await?;
    Ok(reservation)
}

fn reopen(ledger: &Ledger) -> Result<Ledger, AllocatorError> {
    Ok(Ledger::open(ledger.data_dir(), ledger.network().clone())?)
}

#[cfg(test)]
mod tests;
