//! Entries and transactions as Consul writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::{Entry, Expected, Op, Revision, SessionId, StoreError, TxnOutcome};

/// An entry of the key/value store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    key: String,
    /// Base64; `null` stands for an empty value.
    value: Option<String>,
    modify_index: u64,
    session: Option<String>,
}

impl Pair {
    /// The entry, its key without the store's prefix.
    pub(super) fn into_entry(self, prefix: &str) -> Result<Entry, StoreError> {
        let value = BASE64.decode(self.value.unwrap_or_default()).map_err(|error| {
            StoreError::BadValue { key: self.key.clone(), reason: error.to_string() }
        })?;
        Ok(Entry {
            key: self.key.strip_prefix(prefix).unwrap_or(&self.key).to_owned(),
            value,
            revision: Revision(self.modify_index),
            holder: self.session.map(SessionId),
        })
    }
}

/// The index that says what a key must be like: 0 for one that must not exist.
pub(super) fn index_of(expected: Expected) -> u64 {
    match expected {
        Expected::Absent => 0,
        Expected::Revision(revision) => revision.0,
    }
}

#[derive(Serialize)]
struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: Kv<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kv<'a> {
    verb: &'a str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

/// The body of a transaction.
pub(super) fn transaction(prefix: &str, ops: &[Op]) -> Vec<u8> {
    let operations: Vec<Operation<'_>> = ops
        .iter()
        .map(|op| {
            let (verb, key, value, index) = match op {
                Op::Set { key, value } => ("set", key, Some(value), None),
                Op::Write { key, expected, value } => {
                    ("cas", key, Some(value), Some(index_of(*expected)))
                }
                Op::Delete { key } => ("delete", key, None, None),
                Op::DeleteIf { key, revision } => ("delete-cas", key, None, Some(revision.0)),
                Op::Check { key, expected: Expected::Absent } => {
                    ("check-not-exists", key, None, None)
                }
                Op::Check { key, expected: Expected::Revision(revision) } => {
                    ("check-index", key, None, Some(revision.0))
                }
            };
            let value = value.map(|value| BASE64.encode(value));
            Operation { kv: Kv { verb, key: format!("{prefix}{key}"), value, index } }
        })
        .collect();
    serde_json::to_vec(&operations).unwrap_or_default()
}

/// Why a transaction was rolled back.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failures {
    errors: Option<Vec<Failure>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    op_index: usize,
    what: String,
}

impl Failures {
    /// The operation that comes first among those in the way.
    pub(super) fn first(self) -> Option<TxnOutcome> {
        let first = self.errors?.into_iter().min_by_key(|failure| failure.op_index)?;
        Some(TxnOutcome::Conflict { op: first.op_index, what: first.what })
    }

    /// Consul's sentence, if it was the token that did not allow an operation. Nothing but the text
    /// tells this from a conflict (`acl.ErrPermissionDenied`).
    pub(super) fn denial(&self) -> Option<&str> {
        let failures = self.errors.as_deref()?.iter();
        let mut texts = failures.map(|failure| failure.what.as_str());
        texts.find(|text| text.contains("Permission denied"))
    }
}
