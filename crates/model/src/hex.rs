//! The form of ids in keys and file names: hex digits, of a fixed number for each kind of id.

use crate::ModelError;

/// The size of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digits {
    /// 16 digits.
    Of64Bits,
    /// 32 digits.
    Of128Bits,
}

/// The number that `value` stands for. `kind` names the id in the error.
pub(crate) fn parse<T: TryFrom<u128>>(
    kind: &'static str,
    digits: Digits,
    value: &str,
) -> Result<T, ModelError> {
    let (count, reason) = match digits {
        Digits::Of64Bits => (16, "expected 16 hex digits"),
        Digits::Of128Bits => (32, "expected 32 hex digits"),
    };
    let refuse = || ModelError::Name { kind, value: value.into(), reason };
    // `from_str_radix` takes a sign too.
    if value.len() != count || !value.is_ascii() || value.starts_with(['+', '-']) {
        return Err(refuse());
    }
    let number = u128::from_str_radix(value, 16).map_err(|_| refuse())?;
    T::try_from(number).map_err(|_| refuse())
}
