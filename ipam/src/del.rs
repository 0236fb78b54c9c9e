//! DEL: the attachment holds no address afterwards. That it held none before is no error, nor that
//! the network, its definition or the cluster store is gone.

use weft_cni::{CniError, Request};
use weft_ledger::{Ledger, ledger};

use crate::request::{Call, holder};

/// Gives the attachment's address back.
pub fn del(request: &Request) -> Result<(), CniError> {
    let call = Call::of(request)?;
    let holder = holder(request)?;
    let data_dir = &call.node.data_dir;
    let released = match call.cached()? {
        Some(network) => {
            Ledger::open(data_dir, network).and_then(|ledger| ledger.release(&holder)).map(drop)
        }
        None => ledger::forget(data_dir, &call.network, &holder),
    };
    released.map_err(|error| call.error("release the address", error))
}
