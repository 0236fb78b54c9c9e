//! GC: addresses that no known attachment needs are freed, by the IPAM. Interfaces go with their
//! sandboxes: the kernel removes both ends of a veth when one end's namespace ends.

use weft_cni::{CniError, Request};

use crate::ipam::Ipam;

/// Has the IPAM collect.
pub(crate) async fn gc(request: &Request) -> Result<(), CniError> {
    match Ipam::of(request)? {
        Some(ipam) => ipam.call(request, None).await,
        None => Ok(()),
    }
}
