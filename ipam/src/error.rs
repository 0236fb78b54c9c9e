//! From what went wrong to the CNI error that says so.

use weft_allocator::AllocatorError;
use weft_cni::{CniError, code};

/// The CNI error for `error`, met while doing `what`.
pub(crate) fn cni_error(what: &str, error: impl Into<AllocatorError>) -> CniError {
    let error = error.into();
    let code = if error.is_configuration() {
        code::INVALID_CONFIG
    } else if error.is_transient() {
        code::TRY_AGAIN_LATER
    } else {
        code::IO_FAILURE
    };
    CniError::new(code, error.to_string()).with_details(what)
}
