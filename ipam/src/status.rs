//! STATUS: an ADD would get an address, and no container of this node has one that is not its own.

use weft_cni::{CniError, code};

use crate::request::Call;

/// Returns whether an own block has room. A container with an address that is another node's is an
/// error.
pub fn has_room(call: &Call) -> Result<bool, CniError> {
    let Some(network) = call.cached()? else { return Ok(false) };
    let ledger = call.ledger(network)?;
    let failed = |error: weft_ledger::FileError| call.error("count free addresses", error);
    if let Some(stranded) = ledger.stranded().map_err(failed)?.first() {
        let addresses: Vec<String> = stranded.addresses.iter().map(ToString::to_string).collect();
        return Err(CniError::new(
            code::NOT_AVAILABLE,
            format!(
                "node {} was removed from the cluster while it was cut off: {} of {} belongs to \
                 another node; delete it and start it again",
                call.node.node,
                addresses.join(", "),
                stranded.holder
            ),
        ));
    }
    Ok(ledger.counts().map_err(failed)?.free > 0)
}

/// Checks that the cluster store could give a block.
pub async fn has_store(call: &Call) -> Result<(), CniError> {
    let cluster = call.cluster()?;
    cluster.store().check().await.map_err(|error| {
        let reason = format!(
            "no owned block of network {} has room, and a new one cannot be claimed: {error}",
            call.network
        );
        CniError::new(code::NOT_AVAILABLE, reason)
    })
}
