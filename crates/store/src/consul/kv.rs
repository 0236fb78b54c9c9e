//! Entries and transactions in Consul's JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::{Entry, Expected, Lease, Op, Revision, StoreError};

/// An entry of the key/value store.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    /// Base64; `null` stands for an empty value.
    value: Option<String>,
    /// Raft index of the last write. It is the whole server's, so no later life of a key has it.
    modify_index: u64,
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
            revision: Revision::new(self.modify_index),
        })
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
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
}

/// The body of a transaction. Each operation becomes as many of Consul's as its weight.
pub(super) fn transaction(prefix: &str, ops: &[Op]) -> Vec<u8> {
    let operations: Vec<Operation<'_>> = ops.iter().flat_map(|op| operations(prefix, op)).collect();
    serde_json::to_vec(&operations).unwrap_or_default()
}

fn operations<'a>(prefix: &str, op: &Op) -> Vec<Operation<'a>> {
    let operation = |verb, index| {
        let value = op.value().map(|value| BASE64.encode(value));
        let key = format!("{prefix}{}", op.key());
        Operation { kv: Kv { verb, key, value, index, session: None } }
    };
    match op {
        Op::Put { .. } => vec![operation("set", None)],
        // Index 0 stands for a key that must not exist.
        Op::Write { expected: Expected::Absent, .. } => vec![operation("cas", Some(0))],
        Op::Write { expected: Expected::Revision(revision), .. } => {
            vec![operation("cas", Some(revision.get()))]
        }
        Op::Delete { .. } => vec![operation("delete", None)],
        // `delete-cas` succeeds for an absent key, whatever the index (`kvsDeleteCASTxn`).
        Op::DeleteIf { revision, .. } => {
            vec![operation("check-index", Some(revision.get())), operation("delete", None)]
        }
        Op::Check { expected: Expected::Absent, .. } => vec![operation("check-not-exists", None)],
        Op::Check { expected: Expected::Revision(revision), .. } => {
            vec![operation("check-index", Some(revision.get()))]
        }
    }
}

/// The operation of ours that Consul's operation at `position` belongs to.
pub(super) fn op_at(ops: &[Op], position: usize) -> Option<&Op> {
    let mut end = 0;
    ops.iter().find(|op| {
        end += op.weight();
        position < end
    })
}

/// The body of a transaction that writes the key of `put` and binds it to a session. `lock` fails
/// on a key that another session holds, so the key is deleted first; watchers see both at once.
pub(super) fn bind(prefix: &str, put: &Op, lease: &Lease) -> Vec<u8> {
    let key = format!("{prefix}{}", put.key());
    let value = put.value().map(|value| BASE64.encode(value));
    let delete = Kv { verb: "delete", key: key.clone(), value: None, index: None, session: None };
    let lock = Kv { verb: "lock", key, value, index: None, session: Some(lease.id()) };
    serde_json::to_vec(&[Operation { kv: delete }, Operation { kv: lock }]).unwrap_or_default()
}

/// The reasons for which a transaction was rolled back.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failures {
    errors: Option<Vec<Failure>>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failure {
    /// Position of the operation in the transaction.
    pub(super) op_index: usize,
    /// Consul's sentence.
    pub(super) what: String,
}

impl Failures {
    /// The failure to report: a denied operation if there is one, else the first in order.
    pub(super) fn first(self) -> Option<Failure> {
        self.errors?.into_iter().min_by_key(|failure| (!failure.is_denial(), failure.op_index))
    }
}

impl Failure {
    /// Returns whether the token does not allow the operation. Nothing but the text tells this from
    /// a conflict (`acl.ErrPermissionDenied`).
    pub(super) fn is_denial(&self) -> bool {
        self.what.contains("Permission denied")
    }

    /// Returns whether a lock failed because its session has ended (`kvsLockTxn` in Consul's
    /// `agent/consul/state/kvs.go`).
    pub(super) fn is_ended_session(&self) -> bool {
        self.what.contains("invalid session")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_operation_of_a_position() {
        let old = Revision::new(7);
        let ops = [Op::delete("a"), Op::delete_if("b", old), Op::delete("c")];
        let keys: Vec<Option<&str>> =
            (0..5).map(|position| op_at(&ops, position).map(Op::key)).collect();
        assert_eq!(keys, [Some("a"), Some("b"), Some("b"), Some("c"), None]);
        for op in ops {
            assert_eq!(operations("", &op).len(), op.weight());
        }
    }
}
