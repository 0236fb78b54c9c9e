//! STATUS: an ADD would get an address.

use weft_cni::{CniError, Request, code};

use crate::request::Call;

/// Looks for room on the node, and else for a store that could give some.
pub fn status(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    if let Some(network) = call.cached()? {
        let counts = call
            .ledger(network)?
            .counts()
            .map_err(|error| call.error("count free addresses", &error.into()))?;
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
