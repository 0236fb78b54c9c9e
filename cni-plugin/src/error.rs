//! From what went wrong to the CNI error that says so.

use std::future::Future;

use weft_cni::{CniError, code};
use weft_datapath::DatapathError;
use weft_wiring::WiringError;

/// The CNI error for `error`, met while doing `what`.
pub(crate) fn cni_error(what: &str, error: &WiringError) -> CniError {
    let code = if matches!(error, WiringError::Datapath(DatapathError::Netns { .. })) {
        code::INVALID_NETNS
    } else if error.is_configuration() {
        code::INVALID_CONFIG
    } else if error.is_transient() {
        code::TRY_AGAIN_LATER
    } else {
        code::IO_FAILURE
    };
    CniError::new(code, error.to_string()).with_details(what)
}

/// The CNI error for a refusal of the kernel.
pub(crate) fn kernel_error(what: &str, error: DatapathError) -> CniError {
    cni_error(what, &WiringError::Datapath(error))
}

/// Runs the verb on this thread: the plugin does little, and that little in sequence.
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, CniError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CniError::new(code::IO_FAILURE, format!("start the runtime: {error}")))?;
    Ok(runtime.block_on(future))
}
