//! The embedded store of a single node: one JSON file.
//!
//! The file is replaced as a whole, by rename, under an advisory lock, and synchronised to disk
//! before it takes the old one's place. So a reader needs no lock, and a writer that is killed or a
//! machine that loses power leaves the state before the change or the state after it. It holds
//! networks and blocks, not containers, and is written when one of those comes or goes: seldom.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Cursor, Entry, Expected, Listing, MAX_OPS, Op, Revision, SessionId, Store, StoreError,
    TxnOutcome,
};

/// How often a watch looks at the file.
const POLL: Duration = Duration::from_millis(100);

/// How often to look whether another process has let go of the file.
const LOCK_POLL: Duration = Duration::from_millis(2);

/// How long another process may hold the file. A change takes milliseconds: who holds it for longer
/// is stopped, and may be for ever.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The store in a directory.
#[derive(Debug, Clone)]
pub struct LocalStore {
    dir: PathBuf,
    lock_patience: Duration,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Counts up with each change.
    revision: u64,
    entries: BTreeMap<String, Stored>,
    #[serde(default)]
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    /// As it is, for people who read the file.
    value: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    name: String,
    ttl_ms: u64,
    /// On the clock that counts from boot and goes on while the machine sleeps.
    expires_ms: u64,
    boot_id: String,
}

impl LocalStore {
    /// The store in directory `dir`, which is made with the first write.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), lock_patience: LOCK_PATIENCE }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("store.json")
    }

    fn failed(&self, what: &str, path: &Path, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Unreachable {
            store: self.describe(),
            cause: format!("{what} {}: {error}", path.display()),
        }
    }

    fn read(&self) -> Result<State, StoreError> {
        let path = self.path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StoreError::BadValue {
                key: path.display().to_string(),
                reason: format!("{error}; repair the file, or remove it to start anew"),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(self.failed("read", &path, &error)),
        }
    }

    /// Runs `change` on the state, and keeps what it made of it unless it says not to.
    async fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Change<T>,
    ) -> Result<T, StoreError> {
        let _lock = self.lock().await?;
        let mut state = self.read()?;
        match change(&mut state) {
            Change::Drop(result) => Ok(result),
            Change::Keep(result) => {
                self.write(&state)?;
                Ok(result)
            }
        }
    }

    /// Waits until no other process changes the file. The lock goes with what is returned.
    async fn lock(&self) -> Result<File, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|error| self.failed("create", &self.dir, &error))?;
        let lock_path = self.dir.join("store.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| self.failed("open", &lock_path, &error))?;
        let start = tokio::time::Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if start.elapsed() < self.lock_patience => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let waited = format!(
                        "another process has held it for over {} s",
                        self.lock_patience.as_secs()
                    );
                    return Err(self.failed("lock", &lock_path, &waited));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(self.failed("lock", &lock_path, &error));
                }
            }
        }
    }

    fn write(&self, state: &State) -> Result<(), StoreError> {
        let path = self.path();
        let mut text = serde_json::to_vec_pretty(state)
            .map_err(|error| self.failed("write", &path, &error))?;
        text.push(b'\n');
        let draft = self.dir.join("store.json.new");
        let write = || {
            let mut options = File::options();
            options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error: std::io::Error| self.failed("write", &path, &error))
    }

    fn listing(&self, prefix: &str) -> Result<Listing, StoreError> {
        let state = self.read()?;
        let now = Now::read();
        let entries: Vec<Entry> = state
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| stored.to_entry(key, &state, &now))
            .collect();
        // A session that runs out of time changes nothing in the file, and yet who holds what.
        let mut seen = DefaultHasher::new();
        state.revision.hash(&mut seen);
        for entry in &entries {
            entry.holder.hash(&mut seen);
        }
        Ok(Listing { entries, cursor: Cursor(seen.finish()) })
    }

    fn raw(&self, key: &str, value: Vec<u8>) -> Result<Box<RawValue>, StoreError> {
        let text = String::from_utf8(value).map_err(|error| error.to_string());
        text.and_then(|text| RawValue::from_string(text).map_err(|error| error.to_string()))
            .map_err(|reason| StoreError::BadValue {
                key: key.to_owned(),
                reason: format!("the {} keeps JSON only: {reason}", self.describe()),
            })
    }
}

/// What to do with a state that was worked on.
enum Change<T> {
    Keep(T),
    Drop(T),
}

/// This moment, as sessions see it.
struct Now {
    ms: u64,
    boot_id: String,
}

impl Now {
    fn read() -> Self {
        let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        let since_boot = clock.map(Duration::from).unwrap_or_default();
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let ms = u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX);
        Self { ms, boot_id: boot_id.trim().to_owned() }
    }
}

impl Session {
    fn is_alive(&self, now: &Now) -> bool {
        self.boot_id == now.boot_id && now.ms < self.expires_ms
    }
}

impl Stored {
    fn to_entry(&self, key: &str, state: &State, now: &Now) -> Entry {
        let holder = self
            .holder
            .as_ref()
            .filter(|id| state.sessions.get(*id).is_some_and(|session| session.is_alive(now)));
        Entry {
            key: key.to_owned(),
            value: self.value.get().as_bytes().to_vec(),
            revision: Revision(self.revision),
            holder: holder.cloned().map(SessionId),
        }
    }
}

impl State {
    fn is(&self, key: &str, expected: Expected) -> bool {
        let revision = self.entries.get(key).map(|stored| Revision(stored.revision));
        match expected {
            Expected::Absent => revision.is_none(),
            Expected::Revision(expected) => revision == Some(expected),
        }
    }

    fn put(&mut self, key: &str, value: Box<RawValue>) {
        self.revision += 1;
        let holder = self.entries.remove(key).and_then(|old| old.holder);
        let stored = Stored { revision: self.revision, holder, value };
        self.entries.insert(key.to_owned(), stored);
    }

    fn remove(&mut self, key: &str) {
        self.revision += 1;
        self.entries.remove(key);
    }
}

#[async_trait::async_trait]
impl Store for LocalStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let state = self.read()?;
        let now = Now::read();
        Ok(state.entries.get(key).map(|stored| stored.to_entry(key, &state, &now)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.listing(prefix)
    }

    async fn watch(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Listing, StoreError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let listing = self.listing(prefix)?;
            if &listing.cursor != cursor || tokio::time::Instant::now() >= deadline {
                return Ok(listing);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        value: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let ops = [Op::Write { key: key.to_owned(), expected, value }];
        Ok(self.transact(&ops).await? == TxnOutcome::Committed)
    }

    async fn transact(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        if ops.len() > MAX_OPS {
            let what = format!("{} operations in one transaction, {MAX_OPS} at most", ops.len());
            return Err(StoreError::TooLarge { store: self.describe(), what });
        }
        let mut values = vec![];
        for op in ops {
            values.push(match op {
                Op::Set { key, value } | Op::Write { key, value, .. } => {
                    Some(self.raw(key, value.clone())?)
                }
                _ => None,
            });
        }
        self.change(|state| {
            for (place, (op, value)) in ops.iter().zip(values).enumerate() {
                let (key, expected) = match op {
                    Op::Write { key, expected, .. } | Op::Check { key, expected } => {
                        (key, Some(*expected))
                    }
                    Op::DeleteIf { key, revision } => (key, Some(Expected::Revision(*revision))),
                    Op::Set { key, .. } | Op::Delete { key } => (key, None),
                };
                if expected.is_some_and(|expected| !state.is(key, expected)) {
                    let what = format!("{key} is not as expected");
                    return Change::Drop(TxnOutcome::Conflict { op: place, what });
                }
                match (op, value) {
                    (_, Some(value)) => state.put(key, value),
                    (Op::Delete { .. } | Op::DeleteIf { .. }, None) => state.remove(key),
                    (_, None) => {}
                }
            }
            Change::Keep(TxnOutcome::Committed)
        })
        .await
    }

    async fn create_session(&self, name: &str, ttl: Duration) -> Result<SessionId, StoreError> {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.change(|state| {
            let now = Now::read();
            state.sessions.retain(|_, session| session.is_alive(&now));
            let expires_ms = now.ms.saturating_add(ttl_ms);
            let boot_id = now.boot_id.clone();
            let session = Session { name: name.to_owned(), ttl_ms, expires_ms, boot_id };
            state.sessions.insert(id.clone(), session);
            state.revision += 1;
            Change::Keep(())
        })
        .await?;
        Ok(SessionId(id))
    }

    async fn renew_session(&self, session: &SessionId) -> Result<bool, StoreError> {
        self.change(|state| {
            let now = Now::read();
            match state.sessions.get_mut(&session.0) {
                Some(session) if session.is_alive(&now) => {
                    session.expires_ms = now.ms.saturating_add(session.ttl_ms);
                    Change::Keep(true)
                }
                _ => Change::Drop(false),
            }
        })
        .await
    }

    async fn destroy_session(&self, session: &SessionId) -> Result<(), StoreError> {
        self.change(|state| match state.sessions.remove(&session.0) {
            Some(_) => {
                state.revision += 1;
                Change::Keep(())
            }
            None => Change::Drop(()),
        })
        .await
    }

    async fn acquire(
        &self,
        key: &str,
        value: Vec<u8>,
        session: &SessionId,
    ) -> Result<bool, StoreError> {
        let value = self.raw(key, value)?;
        let store = self.describe();
        self.change(|state| {
            let now = Now::read();
            if !state.sessions.get(&session.0).is_some_and(|session| session.is_alive(&now)) {
                let cause = "the session has ended".to_owned();
                return Change::Drop(Err(StoreError::Unreachable { store, cause }));
            }
            let entry = state.entries.get(key).map(|stored| stored.to_entry(key, state, &now));
            let held = entry.and_then(|entry| entry.holder);
            if held.is_some_and(|holder| &holder != session) {
                return Change::Drop(Ok(false));
            }
            state.put(key, value);
            if let Some(stored) = state.entries.get_mut(key) {
                stored.holder = Some(session.0.clone());
            }
            Change::Keep(Ok(true))
        })
        .await?
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read().map(drop)
    }

    fn describe(&self) -> String {
        format!("local store in {}", self.dir.display())
    }

    fn is_single_node(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_whose_file_somebody_holds_cannot_be_used_now() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = LocalStore::new(dir.path());
        store.lock_patience = Duration::from_millis(50);
        let held = store.lock().await.unwrap();
        let error = store.create_session("agent", POLL).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let file = dir.path().join("store.lock").display().to_string();
        assert!(error.to_string().contains(&format!("lock {file}: another process")), "{error}");
        // To read takes no lock.
        assert_eq!(store.list("").await.unwrap().entries, []);
        drop(held);
        store.create_session("agent", POLL).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_waits_for_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path());
        let held = store.lock().await.unwrap();
        let other = store.clone();
        let change = tokio::spawn(async move { other.create_session("agent", POLL).await });
        tokio::time::sleep(POLL).await;
        assert!(!change.is_finished());
        drop(held);
        change.await.unwrap().unwrap();
    }
}
