//! `weft-ipam`: an address for an attachment.
//!
//! Works under `weft` and, like any IPAM plugin, under foreign main plugins; run by hand as a main
//! plugin it reserves and touches no sandbox. While a block of this node has room it reads and
//! writes a few files and asks no other program.
//!
//! The program is `weft` under another name: one file, so that `weft` can answer in its own process
//! what the IPAM plugin would ([`call`]). This crate knows nothing of links all the same.
//!
//! - [`request`]: a call, checked.
//! - [`add`], [`del`], [`check`], [`gc`], [`status`]: a verb each.
//! - [`error`]: the CNI errors for ours.

pub mod add;
pub mod check;
pub mod del;
pub mod error;
pub mod gc;
pub mod request;
pub mod status;

use std::future::Future;

use weft_cni::{CniError, CniResult, Plugin, Request, Verb, code};

/// The name of the plugin, and of its file.
pub const NAME: &str = "weft-ipam";

/// The plugin.
#[derive(Debug, Default)]
pub struct Ipam;

impl Plugin for Ipam {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&self, request: &Request) -> Result<CniResult, CniError> {
        let call = add::Add::of(request, request::Call::of(request)?)?;
        // The usual case needs no runtime.
        match call.locally()? {
            Some(result) => Ok(result),
            None => block_on(call.in_cluster())?,
        }
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        del::del(request, &request::Call::of(request)?)
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        check::check(request, &request::Call::of(request)?)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        gc::gc(request, &request::Call::of(request)?)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        let call = request::Call::of(request)?;
        if status::has_room(&call)? { Ok(()) } else { block_on(status::has_store(&call))? }
    }
}

/// Answers `request` in this process as the plugin's own process would; only ADD has a result. A
/// caller that has read the configurations hands over the `call`, which is not checked again.
pub async fn call(request: &Request, call: Option<request::Call>) -> Result<CniResult, CniError> {
    let answer =
        async { answer(request, call.map_or_else(|| request::Call::of(request), Ok)?).await };
    weft_cni::guarded(&Ipam, answer).await
}

async fn answer(request: &Request, call: request::Call) -> Result<CniResult, CniError> {
    match request.verb() {
        Verb::Add => {
            let call = add::Add::of(request, call)?;
            return match call.locally()? {
                Some(result) => Ok(result),
                None => call.in_cluster().await,
            };
        }
        Verb::Del => del::del(request, &call)?,
        Verb::Check => check::check(request, &call)?,
        Verb::Gc => gc::gc(request, &call)?,
        Verb::Status => {
            if !status::has_room(&call)? {
                status::has_store(&call).await?;
            }
        }
        Verb::Version => {}
    }
    Ok(CniResult::default())
}

/// Runs a verb on this thread: a plugin does little, and that little in sequence.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, CniError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CniError::new(code::IO_FAILURE, format!("start the runtime: {error}")))?;
    Ok(runtime.block_on(future))
}
