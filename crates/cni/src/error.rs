//! Errors as runtimes read them.

use serde_json::json;

/// Codes of the specification, and weft's own from 100 on.
pub mod code {
    /// The plugin does not speak the configuration's version.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A parameter in the environment is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading, writing or the kernel failed.
    pub const IO_FAILURE: u32 = 5;
    /// The input is not JSON.
    pub const DECODING_FAILURE: u32 = 6;
    /// The configuration cannot be used.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used. Known to the reference implementation only.
    pub const INVALID_NETNS: u32 = 8;
    /// It may work later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: no ADD can be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: nor are existing containers served well.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// CHECK: something is not as the previous result says.
    pub const CHECK_FAILED: u32 = 100;
    /// A delegated plugin did not keep to the protocol.
    pub const DELEGATE: u32 = 101;
    /// A bug in this plugin.
    pub const BUG: u32 = 999;
}

/// The cause of a failure, as far as it decides the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The configuration.
    Configuration,
    /// The network namespace that the caller named.
    Sandbox,
    /// The state of node or cluster at the moment: it may work later.
    Moment,
    /// Anything else: files, the kernel.
    Failure,
}

impl Fault {
    /// The code of an error with this cause.
    pub fn code(self) -> u32 {
        match self {
            Self::Configuration => code::INVALID_CONFIG,
            Self::Sandbox => code::INVALID_NETNS,
            Self::Moment => code::TRY_AGAIN_LATER,
            Self::Failure => code::IO_FAILURE,
        }
    }
}

/// An error to print for the runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct CniError {
    /// See [`code`].
    pub code: u32,
    /// The failure, and what to do.
    pub msg: String,
    /// While doing what, or more about it. May be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The error for `error`, met while doing `what`.
    pub fn met(fault: Fault, error: &dyn std::fmt::Display, what: impl Into<String>) -> Self {
        Self::new(fault.code(), error.to_string()).with_details(what)
    }

    /// The error with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The error as the specification shapes it.
    pub fn to_json(&self, version: &str) -> serde_json::Value {
        let mut object = json!({
            "cniVersion": version,
            "code": self.code,
            "msg": speakable(&self.msg),
        });
        if !self.details.is_empty() {
            object["details"] = speakable(&self.details).into();
        }
        object
    }
}

/// Runtimes that use go-cni take an error of DEL that contains these words for success, and never
/// call again: what should be retried must not use them, no matter which program wrote the text.
fn speakable(text: &str) -> String {
    let mut text = text.to_owned();
    for (words, instead) in [
        ("not found", "missing"),
        ("Not found", "Missing"),
        ("not Found", "missing"),
        ("Not Found", "Missing"),
        ("NOT FOUND", "MISSING"),
        ("No such file or directory", "it does not exist"),
        ("no such file or directory", "it does not exist"),
    ] {
        text = text.replace(words, instead);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_runtimes_take_for_success_are_never_printed() {
        let error = CniError::new(code::IO_FAILURE, "key not found in store")
            .with_details("open /x: No such file or directory (os error 2)");
        let json = error.to_json("1.0.0").to_string();
        assert!(!json.to_lowercase().contains("not found"), "{json}");
        assert!(!json.to_lowercase().contains("no such file"), "{json}");
        assert_eq!(error.to_json("1.0.0")["code"], 5);
    }
}
