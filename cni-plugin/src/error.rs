//! The CNI errors for ours.

use weft_cni::{CniError, Fault};
use weft_datapath::DatapathError;
use weft_wiring::WiringError;

/// The CNI error for `error`, met while doing `what`.
pub(crate) fn cni_error(what: &str, error: &WiringError) -> CniError {
    let fault = match error {
        WiringError::Allocator(error) => weft_ipam::error::fault(error),
        WiringError::Datapath(DatapathError::Netns { .. }) => Fault::Sandbox,
        error if error.is_configuration() => Fault::Configuration,
        error if error.is_transient() => Fault::Moment,
        _ => Fault::Failure,
    };
    CniError::met(fault, error, what)
}
