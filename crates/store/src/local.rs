//! The embedded store of a single node: one JSON file.
//!
//! The file is replaced as a whole, by rename, under an advisory lock, and synchronised to disk
//! before it takes the old one's place. So a reader needs no lock, and a writer that is killed or a
//! machine that loses power leaves the state before the change or the state after it. It holds
//! networks and blocks, not containers, and is seldom written.
//!
//! A key whose lease has ended is absent for every reader at once, and leaves the file with the
//! next write. A wait polls the file, and returns no state: reading again costs the same.

mod file;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    Change, Cursor, Entry, Lease, Listing, Lookup, Op, Revision, Store, StoreError, TxnOutcome, txn,
};
use file::{State, StoreFile, Stored, Verdict};

/// Interval at which a wait reads the file.
const POLL: Duration = Duration::from_millis(100);

/// The store in a directory.
#[derive(Debug, Clone)]
pub struct LocalStore {
    file: StoreFile,
}

impl LocalStore {
    /// The store in directory `dir`, which is created with the first write.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { file: StoreFile::new(dir.into()) }
    }

    /// The value as it stands in the file.
    fn raw(&self, key: &str, value: &[u8]) -> Result<Box<RawValue>, StoreError> {
        let text = String::from_utf8(value.to_vec()).map_err(|error| error.to_string());
        text.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()))
            .map_err(|reason| StoreError::BadValue {
                key: key.to_owned(),
                reason: format!("the {} keeps JSON only: {reason}", self.describe()),
            })
    }

    /// Polls until `cursor_of` the state is another than `cursor`.
    async fn wait<T>(
        &self,
        cursor: &Cursor,
        wait: Duration,
        cursor_of: impl Fn(&State) -> Cursor,
    ) -> Result<Change<T>, StoreError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let next = cursor_of(&self.file.read()?);
            if &next != cursor || tokio::time::Instant::now() >= deadline {
                return Ok(Change { cursor: next, state: None });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn entry(key: &str, stored: &Stored) -> Entry {
    Entry {
        key: key.to_owned(),
        value: stored.value.get().as_bytes().to_vec(),
        revision: Revision::new(stored.revision),
    }
}

/// Fingerprint of keys and their revisions. A lease that ends changes it, although the file stays.
fn cursor<'a>(entries: impl Iterator<Item = (&'a str, &'a Stored)>) -> Cursor {
    let mut hasher = DefaultHasher::new();
    for (key, stored) in entries {
        (key, stored.revision).hash(&mut hasher);
    }
    Cursor::new(hasher.finish())
}

fn cursor_of_key(state: &State, key: &str) -> Cursor {
    cursor(state.get(key).map(|stored| ("", stored)).into_iter())
}

fn cursor_of_prefix(state: &State, prefix: &str) -> Cursor {
    cursor(state.range(prefix).map(|(key, stored)| (key.as_str(), stored)))
}

#[async_trait::async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &str) -> Result<Lookup, StoreError> {
        txn::validate_key(&self.describe(), key)?;
        let state = self.file.read()?;
        let entry = state.get(key).map(|stored| entry(key, stored));
        Ok(Lookup { entry, cursor: cursor_of_key(&state, key) })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        txn::validate_prefix(&self.describe(), prefix)?;
        let state = self.file.read()?;
        let entries = state.range(prefix).map(|(key, stored)| entry(key, stored)).collect();
        Ok(Listing { entries, cursor: cursor_of_prefix(&state, prefix) })
    }

    async fn wait_key(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Option<Entry>>, StoreError> {
        txn::validate_key(&self.describe(), key)?;
        self.wait(cursor, wait, |state| cursor_of_key(state, key)).await
    }

    async fn wait_prefix(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Vec<Entry>>, StoreError> {
        txn::validate_prefix(&self.describe(), prefix)?;
        self.wait(cursor, wait, |state| cursor_of_prefix(state, prefix)).await
    }

    async fn commit(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        let mut values = vec![];
        for op in ops {
            values.push(op.value().map(|value| self.raw(op.key(), value)).transpose()?);
        }
        self.file
            .change(|state| {
                let holds =
                    |op: &&Op| op.expected().is_none_or(|wanted| state.is(op.key(), wanted));
                let failed = ops.iter().find(|op| !holds(op));
                if let Some(conflict) = failed.and_then(Op::conflict) {
                    return Verdict::Drop(conflict);
                }
                for (op, value) in ops.iter().zip(values) {
                    match value {
                        Some(value) => state.put(op.key(), value, None),
                        None if op.is_change() => state.remove(op.key()),
                        None => {}
                    }
                }
                Verdict::Keep(TxnOutcome::Committed)
            })
            .await
    }

    async fn grant_lease(&self, name: &str, ttl: Duration) -> Result<Lease, StoreError> {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let grant = |state: &mut State| {
            state.grant(&id, name, ttl);
            Verdict::Keep(())
        };
        self.file.change(grant).await?;
        Ok(Lease::new(id))
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let renew = |state: &mut State| {
            if state.renew(lease.id()) { Verdict::Keep(true) } else { Verdict::Drop(false) }
        };
        self.file.change(renew).await
    }

    async fn revoke_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let revoke = |state: &mut State| {
            if state.revoke(lease.id()) { Verdict::Keep(()) } else { Verdict::Drop(()) }
        };
        self.file.change(revoke).await
    }

    async fn put_leased(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: &Lease,
    ) -> Result<bool, StoreError> {
        let op = Op::put(key, value);
        txn::validate(&self.describe(), std::slice::from_ref(&op))?;
        let value = self.raw(key, op.value().unwrap_or_default())?;
        self.file
            .change(|state| {
                if !state.has_lease(lease.id()) {
                    return Verdict::Drop(false);
                }
                state.put(key, value, Some(lease.id().to_owned()));
                Verdict::Keep(true)
            })
            .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.file.read()?;
        self.file.check_writable()
    }

    fn describe(&self) -> String {
        self.file.describe()
    }

    fn is_single_node(&self) -> bool {
        true
    }
}
