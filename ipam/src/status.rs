//! STATUS: an ADD would get an address, and no container of this node has one that is not its own.

use weft_cni::{CniError, Request, code};

use crate::request::Call;

/// Looks for room on the node, and else for a store that could give some.
pub fn status(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    if let Some(network) = call.cached()? {
        let ledger = call.ledger(network)?;
        let failed = |error: weft_ledger::FileError| call.error("count free addresses", error);
        if let Some(stranded) = ledger.stranded().map_err(failed)?.first() {
            let addresses: Vec<String> =
                stranded.addresses.iter().map(ToString::to_string).collect();
            return Err(CniError::new(
                code::NOT_AVAILABLE,
                format!(
                    "node {} was removed from the cluster while it was cut off: {} of {} belongs to \
                     another node by now; delete it and start it anew",
                    call.node.node,
                    addresses.join(", "),
                    stranded.holder
                ),
            ));
        }
        let counts = ledger.counts().map_err(failed)?;
        if counts.free > 0 {
            return Ok(());
        }
    }
    let cluster = call.cluster()?;
    let unavailable = |reason: String| Err(CniError::new(code::NOT_AVAILABLE, reason));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unavailable(format!("start the runtime: {error}")),
    };
    match runtime.block_on(cluster.store().check()) {
        Ok(()) => Ok(()),
        Err(error) => unavailable(format!(
            "no owned block of network {} has room, and a new one cannot be claimed: {error}",
            call.network
        )),
    }
}
