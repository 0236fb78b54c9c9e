//! Tells an empty list from one that the token may not read.
//!
//! Consul leaves out of a list what the token may not read, and says nothing (1.8) or sets a header
//! (1.12 and later). A caller that took the empty list for the truth would remove every peer. But a
//! read of a single key is refused with 403 by every version. So for an empty list this module
//! reads the key that is equal to the prefix: longest-prefix match gives it the same rule as the
//! keys below. That costs a request for an empty list only, and a good answer holds for ten
//! seconds. Without ACLs the answer is always good.
//!
//! Not found this way: before 1.12, a list that shows some entries of many, and a rule that denies
//! one network inside a prefix that is readable.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use super::ConsulStore;
use super::http::{Call, Reply};
use crate::{Entry, Store, StoreError};

/// For so long a prefix that was readable is taken to be readable still. Short, for a policy may
/// change.
const KEEP: Duration = Duration::from_secs(10);

/// Prefixes found readable, and when.
#[derive(Debug, Default)]
pub(super) struct Readable(Mutex<HashMap<String, Instant>>);

impl Readable {
    fn contains(&self, prefix: &str) -> bool {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(prefix).is_some_and(|since| since.elapsed() < KEEP)
    }

    fn insert(&self, prefix: &str) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|_, since| since.elapsed() < KEEP);
        found.insert(prefix.to_owned(), Instant::now());
    }
}

/// The first two segments of a prefix (`blocks/<network>/`), for which one probe stands: a probe
/// for every empty group of a network would cost more than the lists.
fn scope(prefix: &str) -> &str {
    let end = prefix.match_indices('/').nth(1).map_or(prefix.len(), |(place, _)| place + 1);
    &prefix[..end]
}

impl ConsulStore {
    /// The entries in a reply to a list of `prefix`, if the token may read all of them.
    pub(super) async fn readable_entries(
        &self,
        reply: &Reply,
        prefix: &str,
    ) -> Result<Vec<Entry>, StoreError> {
        let entries = self.entries(reply, self.right_to_list(prefix))?;
        if reply.is_filtered {
            return Err(self.denied(prefix, "some of its keys are withheld"));
        }
        // Folders do not count: the token may read one, and not its neighbours.
        if entries.is_empty() {
            self.require_readable(prefix).await?;
        }
        Ok(entries)
    }

    async fn require_readable(&self, prefix: &str) -> Result<(), StoreError> {
        let scope = scope(prefix);
        if self.readable.contains(scope) || self.readable.contains(prefix) {
            return Ok(());
        }
        // A policy may grant no more than the prefix.
        for candidate in [scope, prefix] {
            if self.is_readable(candidate).await? {
                self.readable.insert(candidate);
                return Ok(());
            }
        }
        Err(self.denied(prefix, "its keys are withheld"))
    }

    /// Returns whether the token may read the key that is equal to `prefix`, present or not.
    async fn is_readable(&self, prefix: &str) -> Result<bool, StoreError> {
        let reply = self.client.send(Call::new(Method::GET, &self.path(prefix))).await?;
        match reply.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(true),
            StatusCode::FORBIDDEN => Ok(false),
            _ => Err(reply.unexpected(&self.describe(), self.right_to_list(prefix))),
        }
    }

    /// The right to read all keys under a prefix, in the words of Consul's policies.
    fn right_to_list(&self, prefix: &str) -> String {
        format!("read on key_prefix \"{}{prefix}\"", self.prefix)
    }

    fn denied(&self, prefix: &str, cause: &str) -> StoreError {
        StoreError::Denied {
            store: self.describe(),
            right: self.right_to_list(prefix),
            cause: cause.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_stands_for_a_network() {
        for (prefix, expected) in [
            ("", ""),
            ("nodes/", "nodes/"),
            ("blocks/red/", "blocks/red/"),
            ("endpoints/red/0-3/0-64-6/", "endpoints/red/"),
        ] {
            assert_eq!(scope(prefix), expected);
        }
    }

    #[tokio::test]
    async fn filtered_list_is_denied_although_it_has_entries() {
        let options = crate::ConsulOptions::at("http://127.0.0.1:1");
        let store = ConsulStore::new(&options, "weft").unwrap();
        let body = r#"[{"Key": "weft/nodes/a", "Value": "MQ==", "ModifyIndex": 7}]"#.into();
        let mut reply = Reply { status: StatusCode::OK, index: Some(7), is_filtered: true, body };
        let error = store.readable_entries(&reply, "nodes/").await.unwrap_err();
        assert!(matches!(&error, StoreError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("read on key_prefix \"weft/nodes/\""), "{error}");
        // A list with entries costs no request: nothing listens on port 1.
        reply.is_filtered = false;
        assert_eq!(store.readable_entries(&reply, "nodes/").await.unwrap().len(), 1);
    }
}
