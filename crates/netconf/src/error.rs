//! The error of a configuration.

use std::fmt;

use weft_model::ModelError;

/// A value that cannot be used: the CNI error with code 7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConfError(pub(crate) String);

impl fmt::Display for NetConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NetConfError {}

impl From<ModelError> for NetConfError {
    fn from(error: ModelError) -> Self {
        Self(error.to_string())
    }
}
