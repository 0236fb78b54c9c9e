//! DEL: the attachment holds no address afterwards. That it held none before is no error, nor that
//! the network, its definition or the cluster store is gone.

use weft_allocator::release::{Reason, release};
use weft_cni::{CniError, Request};

use crate::request::{Call, holder};

/// Gives the attachment's address back.
pub fn del(request: &Request, call: &Call) -> Result<(), CniError> {
    let holder = holder(request)?;
    release(&call.node.data_dir, &call.network, &holder, Reason::Deleted)
        .map(drop)
        .map_err(|error| call.error("release the address", error))
}
