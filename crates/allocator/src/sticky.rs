//! Sticky addresses: the same address for the same identity, on this or another node.
//!
//! Only an attachment that asks for this is known to the cluster: one key says which address its
//! identity has. While the address is kept on this node, nobody is asked.

use log::{debug, info};
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Sticky, StickyRecord};
use weft_store::{Entry, Expected, Op, keys, typed};

use crate::{AllocatorError, acquire, lending, release};
use weft_cluster::Cluster;

/// Gives `holder` the address that its identity has, or else one that it has from now on.
pub async fn reserve(
    cluster: &Cluster,
    ledger: Ledger,
    holder: &Holder,
    sticky: &Sticky,
    about: About<'_>,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Reservation, AllocatorError> {
    let name = ledger.network().name().clone();
    let key = keys::sticky(&name, sticky.id());
    let known = cluster.store().get(&key).await?;
    if let Some(entry) = &known {
        let record: StickyRecord = typed::decode(entry)?;
        // Two identities of one short form: the second one just does not stick.
        let want = Want::Exactly(record.pool, record.host);
        let again = reopen(&ledger)?;
        match acquire::reserve(cluster, again, holder, want, about, still_wanted).await {
            Ok(reservation) => return Ok(reservation),
            Err(AllocatorError::AddressTaken { holder: other, address, network }) => {
                if lending::is_itself(&ledger, &other, Some(sticky))? {
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
                let holder = format!("a container that node {owner} knows of{reason}");
                let identity = sticky.identity.clone();
                return Err(AllocatorError::StickyInUse { identity, address, network, holder });
            }
            Err(AllocatorError::AddressWithheld { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let reservation =
        acquire::reserve(cluster, ledger, holder, Want::Any, about, still_wanted).await?;
    remember(cluster, &name, known, sticky, &reservation).await?;
    Ok(reservation)
}

async fn remember(
    cluster: &Cluster,
    network: &weft_model::NetworkName,
    known: Option<Entry>,
    sticky: &Sticky,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    let (pool, host) = (reservation.pool, reservation.host);
    let record = StickyRecord { sticky: sticky.clone(), pool, host };
    let expected = known.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
    let key = keys::sticky(network, sticky.id());
    if !cluster.store().compare_and_set(&key, expected, typed::encode(&record)?).await? {
        debug!("{} got an address elsewhere at the same time", sticky.identity);
    }
    Ok(())
}

/// Frees the addresses of this node whose time is over: of identities that have not come back, which
/// the cluster forgets, and of prepared containers that were not made.
pub async fn expire(cluster: &Cluster, ledger: &Ledger) -> Result<(), AllocatorError> {
    let name = ledger.network().name();
    for reservation in release::free_expired(ledger)? {
        let Holder::Kept { sticky, .. } = &reservation.holder else { continue };
        let key = keys::sticky(name, sticky.id());
        let Some(entry) = cluster.store().get(&key).await? else { continue };
        let record: StickyRecord = typed::decode(&entry)?;
        if (record.pool, record.host) == (reservation.pool, reservation.host) {
            let op = Op::DeleteIf { key, revision: entry.revision };
            cluster.store().transact(&[op]).await?;
        }
    }
    Ok(())
}

fn reopen(ledger: &Ledger) -> Result<Ledger, AllocatorError> {
    Ok(Ledger::open(ledger.data_dir(), ledger.network().clone())?)
}
