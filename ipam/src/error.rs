//! The CNI errors for ours.

use weft_allocator::AllocatorError;
use weft_cni::{CniError, Fault};

/// The cause of `error`.
pub fn fault(error: &AllocatorError) -> Fault {
    if error.is_configuration() {
        Fault::Configuration
    } else if error.is_transient() {
        Fault::Moment
    } else {
        Fault::Failure
    }
}

/// The CNI error for `error`, met while doing `what`.
pub fn cni_error(what: &str, error: impl Into<AllocatorError>) -> CniError {
    let error = error.into();
    CniError::met(fault(&error), &error, what)
}
