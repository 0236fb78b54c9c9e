//! Consul behind the [`Store`] trait.
//!
//! The client is a thin, typed layer over `hyper`, for what the published clients lack: transactions,
//! the index of an empty prefix, a deadline on every request, and keys that arrive as they were sent.
//!
//! - [`options`]: address, token, certificates.
//! - [`http`]: one request and its answer.
//! - [`kv`]: entries and transactions as Consul writes them.
//!
//! The HTTP API is that of Consul 1.8 and later: <https://developer.hashicorp.com/consul/api-docs>.

mod http;
mod kv;
mod options;
mod tls;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::{
    Cursor, Entry, Expected, Listing, MAX_OPS, Op, SessionId, Store, StoreError, TxnOutcome,
};
use http::{Answer, Client, Question};
use kv::Pair;
pub use options::ConsulOptions;

/// How long an ordinary request may take. A server without a leader answers sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the liveness probe may take: runtimes ask for a plugin's status every few seconds.
const PROBE_PATIENCE: Duration = Duration::from_millis(900);

/// The longest wait that Consul grants a blocking query.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Consul, seen through one prefix of its keys.
#[derive(Debug)]
pub struct ConsulStore {
    client: Client,
    prefix: String,
}

impl ConsulStore {
    /// The store behind `options`, all keys under `prefix`. No connection is made yet.
    pub fn new(options: &ConsulOptions, prefix: &str) -> Result<Self, StoreError> {
        Ok(Self { client: Client::new(options)?, prefix: format!("{}/", prefix.trim_matches('/')) })
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/kv/{}", http::escape(&format!("{}{key}", self.prefix)))
    }

    fn unexpected(&self, answer: &Answer) -> StoreError {
        answer.unexpected(&self.describe())
    }

    /// The pairs in an answer about keys. 404 means that there are none.
    fn pairs(&self, answer: &Answer) -> Result<Vec<Entry>, StoreError> {
        match answer.status {
            StatusCode::NOT_FOUND => Ok(vec![]),
            StatusCode::OK => {
                let pairs: Vec<Pair> = self.json(answer)?;
                pairs.into_iter().map(|pair| pair.into_entry(&self.prefix)).collect()
            }
            _ => Err(self.unexpected(answer)),
        }
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<T, StoreError> {
        serde_json::from_slice(&answer.body).map_err(|error| StoreError::Unexpected {
            store: self.describe(),
            answer: format!("something that cannot be read: {error}"),
        })
    }

    /// Sends a write that answers `true` or `false`.
    async fn decide(&self, path: &str, value: Vec<u8>) -> Result<bool, StoreError> {
        let answer = self.client.ask(Question::new(Method::PUT, path).body(value)).await?;
        match answer.status {
            StatusCode::OK => self.json(&answer),
            _ => Err(self.unexpected(&answer)),
        }
    }
}

#[derive(Deserialize)]
struct CreatedSession {
    #[serde(rename = "ID")]
    id: String,
}

#[async_trait::async_trait]
impl Store for ConsulStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let path = format!("{}?consistent", self.path(key));
        let answer = self.client.ask(Question::new(Method::GET, &path)).await?;
        Ok(self.pairs(&answer)?.pop())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let path = format!("{}?recurse&consistent", self.path(prefix));
        let answer = self.client.ask(Question::new(Method::GET, &path)).await?;
        Ok(Listing { entries: self.pairs(&answer)?, cursor: Cursor(answer.index.unwrap_or(0)) })
    }

    // The rules for the index are those of "Blocking queries" in Consul's documentation: an index
    // that went backwards means that the server's state was replaced, and 0 does not block.
    async fn watch(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Listing, StoreError> {
        let wait = wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
        let index = cursor.0.max(1);
        let path = format!("{}?recurse&index={index}&wait={}s", self.path(prefix), wait.as_secs());
        // The server adds up to a sixteenth of the wait.
        let question = Question::new(Method::GET, &path).patience(wait + wait / 16 + PATIENCE);
        let answer = self.client.ask(question.on_a_connection_of_its_own()).await?;
        let entries = self.pairs(&answer)?;
        let index = answer.index.unwrap_or(0);
        let next = if index < cursor.0 { 0 } else { index };
        Ok(Listing { entries, cursor: Cursor(next) })
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Expected,
        value: Vec<u8>,
    ) -> Result<bool, StoreError> {
        self.decide(&format!("{}?cas={}", self.path(key), kv::index_of(expected)), value).await
    }

    async fn transact(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        if ops.len() > MAX_OPS {
            let what = format!("{} operations in one transaction, {MAX_OPS} at most", ops.len());
            return Err(StoreError::TooLarge { store: self.describe(), what });
        }
        let body = kv::transaction(&self.prefix, ops);
        let question = Question::new(Method::PUT, "/v1/txn").body(body);
        let answer = self.client.ask(question).await?;
        match answer.status {
            StatusCode::OK => Ok(TxnOutcome::Committed),
            // A malformed operation is a 409 too, but this client writes none.
            StatusCode::CONFLICT => {
                let failures: kv::Failures = self.json(&answer)?;
                if let Some(cause) = failures.denial() {
                    let (store, cause) = (self.describe(), cause.to_owned());
                    return Err(StoreError::Denied { store, cause });
                }
                failures.first().ok_or_else(|| self.unexpected(&answer))
            }
            _ => Err(self.unexpected(&answer)),
        }
    }

    async fn create_session(&self, name: &str, ttl: Duration) -> Result<SessionId, StoreError> {
        // No health check but the TTL: the session stands for the agent, not for the Consul client
        // on its machine. No delay either: who takes a record over has made sure of its right.
        let body = serde_json::json!({
            "Name": name,
            "TTL": format!("{}s", ttl.as_secs()),
            "Behavior": "release",
            "LockDelay": "0s",
            "NodeChecks": [],
            "Checks": [],
        });
        let question = Question::new(Method::PUT, "/v1/session/create");
        let answer = self.client.ask(question.body(body.to_string().into_bytes())).await?;
        match answer.status {
            StatusCode::OK => Ok(SessionId(self.json::<CreatedSession>(&answer)?.id)),
            _ => Err(self.unexpected(&answer)),
        }
    }

    async fn renew_session(&self, session: &SessionId) -> Result<bool, StoreError> {
        let path = format!("/v1/session/renew/{}", http::escape(&session.0));
        let answer = self.client.ask(Question::new(Method::PUT, &path)).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.unexpected(&answer)),
        }
    }

    async fn destroy_session(&self, session: &SessionId) -> Result<(), StoreError> {
        let path = format!("/v1/session/destroy/{}", http::escape(&session.0));
        self.decide(&path, vec![]).await.map(drop)
    }

    async fn acquire(
        &self,
        key: &str,
        value: Vec<u8>,
        session: &SessionId,
    ) -> Result<bool, StoreError> {
        let path = format!("{}?acquire={}", self.path(key), http::escape(&session.0));
        self.decide(&path, value).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let question = Question::new(Method::GET, "/v1/status/leader").patience(PROBE_PATIENCE);
        let answer = self.client.ask(question).await?;
        if answer.status != StatusCode::OK {
            return Err(self.unexpected(&answer));
        }
        match self.json::<String>(&answer)?.as_str() {
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
