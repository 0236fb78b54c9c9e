//! The CNI protocol, versions 0.1.0 to 1.1.0, from the plugin's side, and nothing else.
//!
//! A plugin implements [`Plugin`] and hands itself to [`run`]. What it gets is a [`Request`] that
//! has passed every check the specification asks for; what it returns is printed in the shape of
//! the version that the caller speaks.
//!
//! - [`version`]: versions, and what each of them knows.
//! - [`mod@env`]: the parameters in the environment.
//! - [`request`]: parameters and configuration together, checked.
//! - [`result`]: results in each version's shape.
//! - [`error`]: errors and their codes.
//! - [`dispatch`]: from a process's input to its output.
//! - [`delegate`]: running another plugin, an IPAM for one.
//!
//! The specification is at <https://github.com/containernetworking/cni/blob/main/SPEC.md>.

pub mod delegate;
pub mod dispatch;
pub mod env;
pub mod error;
mod object;
pub mod request;
pub mod result;
pub mod version;

pub use dispatch::{Plugin, called_as, guarded, run};
pub use env::{Environment, Verb};
pub use error::{CniError, Fault, code};
pub use request::{AttachmentId, Request, ValidAttachments};
pub use result::CniResult;
pub use version::Version;
