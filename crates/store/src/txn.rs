//! Transactions: their operations, their outcome, and the limits that all stores share.

use std::collections::HashSet;

use crate::{Revision, StoreError};

/// Most operations of one transaction, by their [`Op::weight`]: what Consul allows. etcd's default
/// is 128.
pub const MAX_OPS: usize = 64;

/// Most bytes of keys and values in one transaction, the store's own prefix not counted. Consul
/// takes 512 KiB of JSON with the values in base64, ZooKeeper 1 MiB, etcd 1.5 MiB.
pub const MAX_BYTES: usize = 256 * 1024;

/// The state that a key must be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It does not exist.
    Absent,
    /// It exists and was last written at this revision.
    Revision(Revision),
}

/// A part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes the key if it is in the expected state.
    Write {
        /// The key.
        key: String,
        /// The state that it must be in.
        expected: Expected,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Writes the key in any case. Meant for counters of which only a change matters.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Deletes the key. An absent key is no conflict.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes the key if it was last written at this revision. An absent key is a conflict. Counts
    /// as two operations.
    DeleteIf {
        /// The key.
        key: String,
        /// The revision.
        revision: Revision,
    },
    /// Changes nothing, but fails the transaction if the key is not in the expected state.
    Check {
        /// The key.
        key: String,
        /// The state that it must be in.
        expected: Expected,
    },
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// All of it happened.
    Committed,
    /// None of it happened.
    Conflict {
        /// The key that was not in the expected state. The first in the order of the operations, if
        /// there were several.
        key: String,
        /// The state that it was expected in, for people.
        reason: String,
    },
}

impl Op {
    /// Writes a key that must not exist.
    pub fn create(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self::Write { key: key.into(), expected: Expected::Absent, value }
    }

    /// Writes a key that must have been written last at `revision`.
    pub fn update(key: impl Into<String>, revision: Revision, value: Vec<u8>) -> Self {
        Self::Write { key: key.into(), expected: Expected::Revision(revision), value }
    }

    /// Writes a key in any case.
    pub fn put(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self::Put { key: key.into(), value }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// Deletes a key that must have been written last at `revision`.
    pub fn delete_if(key: impl Into<String>, revision: Revision) -> Self {
        Self::DeleteIf { key: key.into(), revision }
    }

    /// Requires a key to be in the expected state.
    pub fn check(key: impl Into<String>, expected: Expected) -> Self {
        Self::Check { key: key.into(), expected }
    }

    /// The key that the operation is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Write { key, .. }
            | Self::Put { key, .. }
            | Self::Delete { key }
            | Self::DeleteIf { key, .. }
            | Self::Check { key, .. } => key,
        }
    }

    /// The new value, if the operation writes one.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Write { value, .. } | Self::Put { value, .. } => Some(value),
            Self::Delete { .. } | Self::DeleteIf { .. } | Self::Check { .. } => None,
        }
    }

    /// The state that the key must be in; `None` if the operation succeeds in any.
    pub fn expected(&self) -> Option<Expected> {
        match self {
            Self::Write { expected, .. } | Self::Check { expected, .. } => Some(*expected),
            Self::DeleteIf { revision, .. } => Some(Expected::Revision(*revision)),
            Self::Put { .. } | Self::Delete { .. } => None,
        }
    }

    /// Returns whether the operation changes the key, if it succeeds.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Check { .. })
    }

    /// Share of [`MAX_OPS`]. [`Op::DeleteIf`] counts twice: Consul takes an absent key for deleted,
    /// so it needs a check before the deletion.
    pub fn weight(&self) -> usize {
        match self {
            Self::DeleteIf { .. } => 2,
            Self::Write { .. } | Self::Put { .. } | Self::Delete { .. } | Self::Check { .. } => 1,
        }
    }

    /// For stores: the outcome of a transaction that failed at this operation. `None` if the
    /// operation cannot fail that way.
    pub fn conflict(&self) -> Option<TxnOutcome> {
        let reason = match self.expected()? {
            Expected::Absent => "it exists already",
            Expected::Revision(_) => "it was changed or deleted meanwhile",
        };
        Some(TxnOutcome::Conflict { key: self.key().to_owned(), reason: reason.to_owned() })
    }
}

/// Checks the limits of a transaction, which are the same for every store: [`MAX_OPS`],
/// [`MAX_BYTES`], valid keys, and each key at most once (etcd refuses a transaction that changes a
/// key twice).
pub fn validate(store: &str, ops: &[Op]) -> Result<(), StoreError> {
    let too_large = |what| Err(StoreError::TooLarge { store: store.to_owned(), what });
    let weight: usize = ops.iter().map(Op::weight).sum();
    if weight > MAX_OPS {
        return too_large(format!("{weight} operations in one transaction, {MAX_OPS} at most"));
    }
    let bytes: usize =
        ops.iter().map(|op| op.key().len() + op.value().map_or(0, <[u8]>::len)).sum();
    if bytes > MAX_BYTES {
        return too_large(format!("{bytes} bytes in one transaction, {MAX_BYTES} at most"));
    }
    let mut keys = HashSet::new();
    for op in ops {
        validate_key(store, op.key())?;
        if !keys.insert(op.key()) {
            let what = format!("{} occurs twice in one transaction", op.key());
            return Err(StoreError::Invalid { store: store.to_owned(), what });
        }
    }
    Ok(())
}

/// Checks that `key` is a path without empty segments: ZooKeeper has no other keys.
pub fn validate_key(store: &str, key: &str) -> Result<(), StoreError> {
    if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) || key.contains('\0') {
        let what = format!("{key:?} is no key: expected segments with a \"/\" between two");
        return Err(StoreError::Invalid { store: store.to_owned(), what });
    }
    Ok(())
}

/// Checks that `prefix` is empty or consists of whole segments: `nodes/`, but not `nod`.
pub fn validate_prefix(store: &str, prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        _ if prefix.is_empty() => Ok(()),
        Some(path) => validate_key(store, path),
        None => {
            let what =
                format!("{prefix:?} is no prefix: expected whole segments, each with a \"/\"");
            Err(StoreError::Invalid { store: store.to_owned(), what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(ops: &[Op]) -> String {
        validate("test store", ops).unwrap_err().to_string()
    }

    #[test]
    fn refuses_key_that_occurs_twice() {
        let ops = [Op::check("a/b", Expected::Absent), Op::put("a/c", vec![]), Op::delete("a/b")];
        assert_eq!(validate("test store", &ops[..2]), Ok(()));
        let text = refusal(&ops);
        assert!(text.contains("test store") && text.contains("a/b occurs twice"), "{text}");
    }

    #[test]
    fn refuses_more_than_every_store_takes() {
        let ops: Vec<Op> = (0..=MAX_OPS).map(|n| Op::delete(format!("k/{n}"))).collect();
        assert_eq!(validate("test store", &ops[1..]), Ok(()));
        assert!(refusal(&ops).contains("65 operations"));
        let ops: Vec<Op> =
            (0..=MAX_OPS / 2).map(|n| Op::delete_if(format!("k/{n}"), Revision::new(1))).collect();
        assert_eq!(validate("test store", &ops[1..]), Ok(()));
        assert!(refusal(&ops).contains("66 operations"));
        assert!(refusal(&[Op::put("a", vec![0; MAX_BYTES])]).contains("262145 bytes"));
    }

    #[test]
    fn refuses_keys_and_prefixes_that_are_no_paths() {
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a\0"] {
            assert!(validate_key("test store", bad).is_err(), "{bad}");
        }
        for bad in ["a", "/", "a//", "/a/"] {
            assert!(validate_prefix("test store", bad).is_err(), "{bad}");
        }
        for good in ["", "a/", "a/b:c/"] {
            assert!(validate_prefix("test store", good).is_ok(), "{good}");
        }
    }
}
