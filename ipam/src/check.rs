//! CHECK: the attachment holds the addresses that the previous result gives it.

use weft_cni::{CniError, Request, code};

use crate::request::{Call, holder};

/// Compares the reservation with the previous result.
pub fn check(request: &Request, call: &Call) -> Result<(), CniError> {
    let holder = holder(request)?;
    let differs = |msg: String| Err(CniError::new(code::CHECK_FAILED, msg));
    let reservation = match call.cached()? {
        None => {
            return differs(format!(
                "this node has no definition of network {} (`network.json` is missing in {}); the \
                 next ADD makes it again",
                call.network,
                call.node.data_dir.join("networks").join(call.network.as_str()).display()
            ));
        }
        Some(network) => call
            .ledger(network)?
            .reservation(&holder)
            .map_err(|error| call.error("read the reservation", error))?,
    };
    let Some(reservation) = reservation else {
        return differs(format!("{holder} holds no address in network {}", call.network));
    };
    let previous = request.prev_result()?;
    let given = previous.iter().flat_map(|result| &result.ips).map(|ip| ip.address.ip());
    let given: Vec<_> = given.collect();
    // Later plugins of the chain may have added addresses of their own.
    match reservation.addresses.iter().find(|address| !given.contains(address)) {
        Some(address) if previous.is_some() => differs(format!(
            "{holder} holds {address} in network {}, which the previous result lacks",
            call.network
        )),
        _ => Ok(()),
    }
}
