//! Sticky addresses: the same address for the same identity, on this or another node.
//!
//! Only an attachment that asks for this is known to the cluster: one key says which address its
//! identity has. While the address is kept on this node, nobody is asked.

use log::{debug, info, warn};
use weft_ledger::ledger::{About, Want};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{
    Block, HostNumber, Network, NetworkName, PoolIndex, Sticky, StickyId, StickyRecord,
};
use weft_store::{Entry, Expected, Op, TxnOutcome, keys, typed};

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
    let ledger_network = ledger.network().clone();
    let name = ledger_network.name().clone();
    let known = cluster.store().get(&keys::identity(&name, sticky.id())).await?.entry;
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
    remember(cluster, &ledger_network, known, sticky, &reservation).await?;
    Ok(reservation)
}

/// Writes the address of an identity under both its keys, in place of the one that it had.
async fn remember(
    cluster: &Cluster,
    network: &Network,
    known: Option<Entry>,
    sticky: &Sticky,
    reservation: &Reservation,
) -> Result<(), AllocatorError> {
    let (pool, host) = (reservation.pool, reservation.host);
    let record = typed::encode(&StickyRecord { sticky: sticky.clone(), pool, host })?;
    let expected = known.as_ref().map_or(Expected::Absent, |e| Expected::Revision(e.revision));
    let key = keys::identity(network.name(), sticky.id());
    let mut ops = vec![Op::Write { key, expected, value: record.clone() }];
    let of_block = block_key(network, sticky.id(), pool, host);
    let before = known.and_then(|entry| typed::decode::<StickyRecord>(&entry).ok());
    let before = before.and_then(|b| block_key(network, sticky.id(), b.pool, b.host));
    if before != of_block {
        ops.extend(before.map(Op::delete));
    }
    ops.extend(of_block.map(|key| Op::put(key, record)));
    if cluster.store().transact(&ops).await? != TxnOutcome::Committed {
        debug!("{} got an address elsewhere at the same time", sticky.identity);
    }
    Ok(())
}

/// Key of an identity's address below the block that holds it.
fn block_key(network: &Network, id: StickyId, pool: PoolIndex, host: HostNumber) -> Option<String> {
    let bits = network.pool(pool)?.block_bits();
    Some(keys::sticky(network.name(), &Block::containing(pool, host, bits), id))
}

/// Addresses of a block that identities had last: they may come back for them.
pub(crate) async fn of_block(
    cluster: &Cluster,
    network: &NetworkName,
    block: &Block,
) -> Result<Vec<(HostNumber, Sticky)>, AllocatorError> {
    let mut kept = vec![];
    for entry in cluster.store().list(&keys::sticky_of_block(network, block)).await?.entries {
        match typed::decode::<StickyRecord>(&entry) {
            Ok(record) => kept.push((record.host, record.sticky)),
            Err(error) => warn!("{error}; the record is ignored"),
        }
    }
    Ok(kept)
}

/// Frees the addresses of this node whose time is over: of identities that have not come back,
/// which are deleted from the cluster store, and of prepared containers that were not made.
pub async fn expire(cluster: &Cluster, ledger: &Ledger) -> Result<(), AllocatorError> {
    let network = ledger.network();
    let name = network.name();
    for reservation in release::free_expired(ledger)? {
        let Holder::Kept { sticky, .. } = &reservation.holder else { continue };
        let key = keys::identity(name, sticky.id());
        let Some(entry) = cluster.store().get(&key).await?.entry else { continue };
        let record: StickyRecord = typed::decode(&entry)?;
        let (pool, host) = (reservation.pool, reservation.host);
        if (record.pool, record.host) == (pool, host) {
            let mut ops = vec![Op::delete_if(key, entry.revision)];
            ops.extend(block_key(network, sticky.id(), pool, host).map(Op::delete));
            cluster.store().transact(&ops).await?;
        }
    }
    Ok(())
}

fn reopen(ledger: &Ledger) -> Result<Ledger, AllocatorError> {
    Ok(Ledger::open(ledger.data_dir(), ledger.network().clone())?)
}
