//! The form of ids in keys and file names: 16 hex digits.

use crate::ModelError;

/// The number that `value` stands for. `kind` names the id in the error.
pub(crate) fn parse(kind: &'static str, value: &str) -> Result<u64, ModelError> {
    let refuse =
        || ModelError::Name { kind, value: value.into(), reason: "expected 16 hex digits" };
    // `from_str_radix` takes a sign too.
    if value.len() != 16 || !value.is_ascii() || value.starts_with(['+', '-']) {
        return Err(refuse());
    }
    u64::from_str_radix(value, 16).map_err(|_| refuse())
}
