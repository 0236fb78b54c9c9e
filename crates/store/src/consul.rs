//! Consul behind the [`Store`] trait.
//!
//! The client is a thin, typed layer over `hyper`, for features that the published clients lack:
//! transactions, the index of an empty prefix, a deadline on every request, and unchanged keys.
//!
//! - [`access`]: tells an empty list from one that the token may not read.
//! - [`folder`]: keeps waits on empty prefixes quiet.
//! - [`http`]: one request and its reply.
//! - [`kv`]: entries and transactions in Consul's JSON.
//! - [`options`]: address, token, certificates.
//!
//! The verbs, and their requests:
//!
//! - `get`: `GET /v1/kv/<key>?consistent`; the revision is `ModifyIndex`, a Raft index of the whole
//!   server.
//! - `list`: `GET /v1/kv/<prefix>?recurse&consistent`: one answer, one moment.
//! - `wait_key`, `wait_prefix`: the same with `index=<cursor>&wait=…` and without `consistent`; the
//!   answer is the state. A wait that finds no key creates the [`folder`] of its prefix.
//! - `transact`: `PUT /v1/txn`.
//! - `grant_lease`: `PUT /v1/session/create`: no checks but the TTL, behaviour `delete`, no lock
//!   delay.
//! - `renew_lease`, `revoke_lease`: `PUT /v1/session/renew/<id>`, `…/destroy/<id>`.
//! - `put_leased`: `PUT /v1/txn` with `delete` and `lock`. An ending session deletes the keys that
//!   it holds then, so not one that another session has locked since.
//! - `check`: `GET /v1/status/leader`.
//!
//! A session's TTL is ten seconds at least (`session_ttl_min`), and the server may wait for twice
//! the TTL before it ends the session.
//!
//! The HTTP API is that of Consul 1.8 and later: <https://developer.hashicorp.com/consul/api-docs>.

mod access;
pub(crate) mod address;
mod folder;
mod http;
mod kv;
mod options;
mod tls;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::{
    Change, Cursor, Entry, Lease, Listing, Lookup, Op, Store, StoreError, TxnOutcome, txn,
};
use access::Readable;
use folder::{Folders, is_folder};
use http::{Call, Client, Reply};
use kv::Pair;
pub use options::ConsulOptions;

/// Timeout of an ordinary request. A server without a leader answers sooner.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of the probe: runtimes ask for a plugin's status every few seconds.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

/// Longest wait that Consul grants a blocking query.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Consul, seen through one prefix of its keys.
#[derive(Debug)]
pub struct ConsulStore {
    client: Client,
    prefix: String,
    readable: Readable,
    folders: Folders,
}

impl ConsulStore {
    /// The store at `options`, all keys under `prefix`. No connection is made yet.
    pub fn new(options: &ConsulOptions, prefix: &str) -> Result<Self, StoreError> {
        let prefix = format!("{}/", prefix.trim_matches('/'));
        let (readable, folders) = (Readable::default(), Folders::default());
        Ok(Self { client: Client::new(options)?, prefix, readable, folders })
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/kv/{}", http::escape(&format!("{}{key}", self.prefix)))
    }

    /// A right on one key, in the words of Consul's policies.
    fn right(&self, policy: &str, key: &str) -> String {
        format!("{policy} on key \"{}{key}\"", self.prefix)
    }

    /// The entries in a reply about keys. 404 means that there are none.
    fn entries(&self, reply: &Reply, right: String) -> Result<Vec<Entry>, StoreError> {
        match reply.status {
            StatusCode::NOT_FOUND => Ok(vec![]),
            StatusCode::OK => {
                let pairs: Vec<Pair> = self.json(reply)?;
                let pairs = pairs.into_iter().filter(|pair| !is_folder(&pair.key));
                pairs.map(|pair| pair.into_entry(&self.prefix)).collect()
            }
            _ => Err(reply.unexpected(&self.describe(), right)),
        }
    }

    /// The entry in a reply about one key. For a key that the token may not read, Consul answers
    /// 403.
    fn entry(&self, reply: &Reply, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries(reply, self.right("read", key))?.pop())
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, reply: &Reply) -> Result<T, StoreError> {
        serde_json::from_slice(&reply.body).map_err(|error| StoreError::Unexpected {
            store: self.describe(),
            answer: format!("something that cannot be read: {error}"),
        })
    }

    /// Waits for a change below `path`, which ends in `?` or `&`.
    async fn block(
        &self,
        path: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Reply, StoreError> {
        let wait = wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
        // Index 0 does not block; index 1 is older than any key.
        let index = cursor.get().max(1);
        let path = format!("{path}index={index}&wait={}s", wait.as_secs());
        // The server adds up to a sixteenth of the wait.
        let timeout = wait + wait / 16 + TIMEOUT;
        self.client.send(Call::new(Method::GET, &path).timeout(timeout).blocking()).await
    }

    async fn session(&self, action: &str, body: Vec<u8>) -> Result<Reply, StoreError> {
        let path = format!("/v1/session/{action}");
        self.client.send(Call::new(Method::PUT, &path).body(body)).await
    }

    fn session_error(&self, reply: &Reply) -> StoreError {
        reply.unexpected(&self.describe(), "write on sessions (session_prefix)".to_owned())
    }

    /// The failure in the reply to a transaction that was rolled back. `right` names the right that
    /// the operation at a position needs.
    fn failure(
        &self,
        reply: &Reply,
        right: impl Fn(usize) -> String,
    ) -> Result<kv::Failure, StoreError> {
        let store = self.describe();
        let failures: kv::Failures = self.json(reply)?;
        match failures.first() {
            Some(failure) if failure.is_denial() => {
                let right = right(failure.op_index);
                Err(StoreError::Denied { store, right, cause: failure.what })
            }
            Some(failure) => Ok(failure),
            None => Err(reply.unexpected(&store, right(0))),
        }
    }

    /// The error for an operation that failed although it is unconditional, or that does not exist.
    fn odd_failure(&self, failure: kv::Failure) -> StoreError {
        StoreError::Unexpected { store: self.describe(), answer: failure.what }
    }
}

/// The cursor after a wait. An index that went backwards means that the server was replaced or has
/// forgotten deletions, and the next wait must start over ("Blocking queries" in Consul's
/// documentation).
fn next_cursor(before: &Cursor, index: Option<u64>) -> Cursor {
    Cursor::new(index.filter(|index| *index >= before.get()).unwrap_or(0))
}

fn first_cursor(index: Option<u64>) -> Cursor {
    Cursor::new(index.unwrap_or(0))
}

#[derive(Deserialize)]
struct CreatedSession {
    #[serde(rename = "ID")]
    id: String,
}

#[async_trait::async_trait]
impl Store for ConsulStore {
    async fn get(&self, key: &str) -> Result<Lookup, StoreError> {
        txn::validate_key(&self.describe(), key)?;
        let path = format!("{}?consistent", self.path(key));
        let reply = self.client.send(Call::new(Method::GET, &path)).await?;
        Ok(Lookup { entry: self.entry(&reply, key)?, cursor: first_cursor(reply.index) })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        txn::validate_prefix(&self.describe(), prefix)?;
        let path = format!("{}?recurse&consistent", self.path(prefix));
        let reply = self.client.send(Call::new(Method::GET, &path)).await?;
        let entries = self.readable_entries(&reply, prefix).await?;
        Ok(Listing { entries, cursor: first_cursor(reply.index) })
    }

    async fn wait_key(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Option<Entry>>, StoreError> {
        txn::validate_key(&self.describe(), key)?;
        let reply = self.block(&format!("{}?", self.path(key)), cursor, wait).await?;
        let entry = self.entry(&reply, key)?;
        Ok(Change { cursor: next_cursor(cursor, reply.index), state: Some(entry) })
    }

    async fn wait_prefix(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Vec<Entry>>, StoreError> {
        txn::validate_prefix(&self.describe(), prefix)?;
        let reply = self.block(&format!("{}?recurse&", self.path(prefix)), cursor, wait).await?;
        let entries = self.readable_entries(&reply, prefix).await?;
        if reply.status == StatusCode::NOT_FOUND {
            self.create_folder(prefix).await?;
        }
        Ok(Change { cursor: next_cursor(cursor, reply.index), state: Some(entries) })
    }

    async fn commit(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        let body = kv::transaction(&self.prefix, ops);
        let reply = self.client.send(Call::new(Method::PUT, "/v1/txn").body(body)).await?;
        let right = |position: usize| match kv::op_at(ops, position) {
            Some(op) if op.is_change() => self.right("write", op.key()),
            Some(op) => self.right("read", op.key()),
            None => "the transaction".to_owned(),
        };
        match reply.status {
            StatusCode::OK => Ok(TxnOutcome::Committed),
            StatusCode::CONFLICT => {
                let failure = self.failure(&reply, right)?;
                // A malformed operation is a 409 too, but this client writes none.
                let outcome = kv::op_at(ops, failure.op_index).and_then(Op::conflict);
                outcome.ok_or_else(|| self.odd_failure(failure))
            }
            _ => Err(reply.unexpected(&self.describe(), right(0))),
        }
    }

    async fn grant_lease(&self, name: &str, ttl: Duration) -> Result<Lease, StoreError> {
        // A TTL of 0 would be a session without an end.
        let seconds = ttl.as_millis().div_ceil(1000).max(1);
        // No health check but the TTL: the session stands for its owner, not for the Consul client
        // on its machine. No lock delay: the owner's next session takes its keys over at once.
        let body = serde_json::json!({
            "Name": name,
            "TTL": format!("{seconds}s"),
            "Behavior": "delete",
            "LockDelay": "0s",
            "NodeChecks": [],
            "Checks": [],
        });
        let reply = self.session("create", body.to_string().into_bytes()).await?;
        match reply.status {
            StatusCode::OK => Ok(Lease::new(self.json::<CreatedSession>(&reply)?.id)),
            _ => Err(self.session_error(&reply)),
        }
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let reply = self.session(&format!("renew/{}", http::escape(lease.id())), vec![]).await?;
        match reply.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.session_error(&reply)),
        }
    }

    async fn revoke_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let reply = self.session(&format!("destroy/{}", http::escape(lease.id())), vec![]).await?;
        match reply.status {
            StatusCode::OK => Ok(()),
            _ => Err(self.session_error(&reply)),
        }
    }

    async fn put_leased(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: &Lease,
    ) -> Result<bool, StoreError> {
        let op = Op::put(key, value);
        txn::validate(&self.describe(), std::slice::from_ref(&op))?;
        let body = kv::bind(&self.prefix, &op, lease);
        let reply = self.client.send(Call::new(Method::PUT, "/v1/txn").body(body)).await?;
        match reply.status {
            StatusCode::OK => Ok(true),
            StatusCode::CONFLICT => {
                let failure = self.failure(&reply, |_| self.right("write", key))?;
                if failure.is_ended_session() { Ok(false) } else { Err(self.odd_failure(failure)) }
            }
            _ => Err(reply.unexpected(&self.describe(), self.right("write", key))),
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        let call = Call::new(Method::GET, "/v1/status/leader").timeout(PROBE_TIMEOUT);
        let reply = self.client.send(call).await?;
        if reply.status != StatusCode::OK {
            return Err(reply.unexpected(&self.describe(), "its status".to_owned()));
        }
        match self.json::<String>(&reply)?.as_str() {
            "" => Err(StoreError::Unreachable {
                store: self.describe(),
                cause: "it has no leader".into(),
            }),
            _ => Ok(()),
        }
    }

    fn describe(&self) -> String {
        self.client.describe()
    }

    fn is_single_node(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_starts_over_if_index_goes_backwards() {
        let before = Cursor::new(7);
        assert_eq!(next_cursor(&before, Some(7)), Cursor::new(7));
        assert_eq!(next_cursor(&before, Some(9)), Cursor::new(9));
        assert_eq!(next_cursor(&before, Some(6)), Cursor::new(0));
        assert_eq!(next_cursor(&before, None), Cursor::new(0));
    }
}
