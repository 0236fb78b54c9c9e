//! The file of the local store: its content, its lock, and its atomic replacement.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Expected, Revision, StoreError};

/// Interval between two attempts to lock the file.
const LOCK_POLL: Duration = Duration::from_millis(2);

/// Timeout of the lock. A change takes milliseconds: a process that holds the lock for longer is
/// stopped, and may be for ever.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Counts up with each change, and so gives each life of a key revisions of its own.
    revision: u64,
    entries: BTreeMap<String, Stored>,
    #[serde(default)]
    leases: BTreeMap<String, StoredLease>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) revision: u64,
    /// The lease that the key is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    /// As written, for people who read the file.
    pub(super) value: Box<RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLease {
    name: String,
    ttl_ms: u64,
    /// On the clock that counts from boot and goes on while the machine sleeps.
    expires_ms: u64,
    boot_id: String,
}

/// The present on the clock of leases.
pub(super) struct Now {
    ms: u64,
    boot_id: String,
}

impl Now {
    pub(super) fn read() -> Self {
        let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        let since_boot = clock.map(Duration::from).unwrap_or_default();
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let ms = u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX);
        Self { ms, boot_id: boot_id.trim().to_owned() }
    }
}

impl StoredLease {
    fn is_alive(&self, now: &Now) -> bool {
        self.boot_id == now.boot_id && now.ms < self.expires_ms
    }
}

impl State {
    /// Removes leases that have ended, and their keys.
    fn expire(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let now = Now::read();
        self.leases.retain(|_, lease| lease.is_alive(&now));
        let leases = &self.leases;
        self.entries.retain(|_, stored| {
            stored.lease.as_ref().is_none_or(|lease| leases.contains_key(lease))
        });
    }

    pub(super) fn get(&self, key: &str) -> Option<&Stored> {
        self.entries.get(key)
    }

    pub(super) fn range(&self, prefix: &str) -> impl Iterator<Item = (&String, &Stored)> {
        let from = self.entries.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn is(&self, key: &str, expected: Expected) -> bool {
        let revision = self.entries.get(key).map(|stored| Revision::new(stored.revision));
        match expected {
            Expected::Absent => revision.is_none(),
            Expected::Revision(expected) => revision == Some(expected),
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Box<RawValue>, lease: Option<String>) {
        self.revision += 1;
        self.entries.insert(key.to_owned(), Stored { revision: self.revision, lease, value });
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    pub(super) fn grant(&mut self, id: &str, name: &str, ttl: Duration) {
        let now = Now::read();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let expires_ms = now.ms.saturating_add(ttl_ms);
        let lease = StoredLease { name: name.to_owned(), ttl_ms, expires_ms, boot_id: now.boot_id };
        self.leases.insert(id.to_owned(), lease);
    }

    pub(super) fn has_lease(&self, id: &str) -> bool {
        self.leases.contains_key(id)
    }

    /// Returns whether the lease was there to renew.
    pub(super) fn renew(&mut self, id: &str) -> bool {
        let lease = self.leases.get_mut(id);
        lease.map(|lease| lease.expires_ms = Now::read().ms.saturating_add(lease.ttl_ms)).is_some()
    }

    /// Returns whether the lease was there to revoke.
    pub(super) fn revoke(&mut self, id: &str) -> bool {
        self.entries.retain(|_, stored| stored.lease.as_deref() != Some(id));
        self.leases.remove(id).is_some()
    }
}

/// A changed state, and whether to write it.
pub(super) enum Verdict<T> {
    Keep(T),
    Drop(T),
}

/// The directory of a store, and the files in it.
#[derive(Debug, Clone)]
pub(super) struct StoreFile {
    pub(super) dir: PathBuf,
    lock_timeout: Duration,
}

impl StoreFile {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, lock_timeout: LOCK_TIMEOUT }
    }

    pub(super) fn describe(&self) -> String {
        format!("local store in {}", self.dir.display())
    }

    fn failed(&self, what: &str, path: &Path, error: &dyn Display) -> StoreError {
        StoreError::Unreachable {
            store: self.describe(),
            cause: format!("{what} {}: {error}", path.display()),
        }
    }

    /// The state without the keys whose lease has ended. An absent file is an empty store.
    pub(super) fn read(&self) -> Result<State, StoreError> {
        let path = self.dir.join("store.json");
        let mut state: State = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StoreError::BadValue {
                key: path.display().to_string(),
                reason: format!("{error}; repair the file, or remove it to start empty"),
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => State::default(),
            Err(error) => return Err(self.failed("read", &path, &error)),
        };
        state.expire();
        Ok(state)
    }

    /// Checks that the directory, or the one that it would be created in, can be written to.
    pub(super) fn check_writable(&self) -> Result<(), StoreError> {
        let existing = self.dir.ancestors().find(|dir| dir.exists()).unwrap_or(&self.dir);
        nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK)
            .map_err(|error| self.failed("write to", existing, &error))
    }

    /// Changes the state under the lock, and writes it if `change` says so.
    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Verdict<T>,
    ) -> Result<T, StoreError> {
        let _lock = self.lock().await?;
        let mut state = self.read()?;
        match change(&mut state) {
            Verdict::Drop(result) => Ok(result),
            Verdict::Keep(result) => {
                self.write(&state)?;
                Ok(result)
            }
        }
    }

    /// Waits until no other process changes the file, without blocking the thread. The lock ends
    /// with the returned file.
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
                Err(TryLockError::WouldBlock) if start.elapsed() < self.lock_timeout => {
                    tokio::time::sleep(LOCK_POLL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let waited = format!(
                        "another process has held it for over {} s",
                        self.lock_timeout.as_secs()
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
        let path = self.dir.join("store.json");
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn change_fails_while_another_process_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StoreFile::new(dir.path().to_owned());
        file.lock_timeout = Duration::from_millis(50);
        let held = file.lock().await.unwrap();
        let error = file.change(|_| Verdict::Keep(())).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let path = dir.path().join("store.lock").display().to_string();
        assert!(error.to_string().contains(&format!("lock {path}: another process")), "{error}");
        // Reading takes no lock.
        assert_eq!(file.read().unwrap().range("").count(), 0);
        drop(held);
        file.change(|_| Verdict::Keep(())).await.unwrap();
    }

    #[tokio::test]
    async fn change_waits_for_the_lock_without_blocking_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let file = StoreFile::new(dir.path().to_owned());
        let held = file.lock().await.unwrap();
        let other = file.clone();
        // On the same thread as this test.
        let change = tokio::spawn(async move { other.change(|_| Verdict::Keep(())).await });
        tokio::time::sleep(LOCK_POLL * 10).await;
        assert!(!change.is_finished());
        drop(held);
        change.await.unwrap().unwrap();
    }
}
