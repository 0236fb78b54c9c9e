//! The cluster store of the simulation: one linear history of writes.
//!
//! What makes it hostile is how calls reach it. A call is executed at one step and answered at a
//! later one, with anything in between; it may be lost, its answer may be lost, and it may be
//! executed long after its caller gave up.

use std::collections::{BTreeMap, BTreeSet};

use weft_store::{
    Cursor, Entry, Expected, Listing, Op, Revision, SessionId, StoreError, TxnOutcome,
};

/// A call to the store.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Get(String),
    List(String),
    Set { key: String, expected: Expected, value: Vec<u8> },
    Transact(Vec<Op>),
    CreateSession,
    RenewSession(SessionId),
    DestroySession(SessionId),
    Acquire { key: String, value: Vec<u8>, session: SessionId },
}

/// What the store answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Entry(Option<Entry>),
    Listing(Listing),
    Done(bool),
    Outcome(TxnOutcome),
    Session(SessionId),
    Failed,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match self {
            Self::Set { key, value, .. } => write!(f, "set {key} {}", text(value)),
            Self::Transact(ops) => ops.iter().try_for_each(|op| match op {
                Op::Set { key, value } | Op::Write { key, value, .. } => {
                    write!(f, "write {key} {}; ", text(value))
                }
                Op::Delete { key } | Op::DeleteIf { key, .. } => write!(f, "delete {key}; "),
                Op::Check { key, expected } => write!(f, "check {key} {expected:?}; "),
            }),
            Self::Acquire { key, .. } => write!(f, "acquire {key}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listing(listing) => write!(f, "{} entries", listing.entries.len()),
            Self::Entry(entry) => match entry {
                None => write!(f, "nothing"),
                Some(entry) => write!(f, "{}", String::from_utf8_lossy(&entry.value)),
            },
            other => write!(f, "{other:?}"),
        }
    }
}

/// A fault that is built in to see whether the simulation finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sabotage {
    /// None.
    #[default]
    None,
    /// Lists come from a server that has not heard of the last writes.
    StaleLists,
    /// Transactions do not look at what they are to check.
    UncheckedTransactions,
    /// A key is deleted although it has changed.
    BlindDeletes,
}

#[derive(Debug, Clone)]
struct Stored {
    value: Vec<u8>,
    revision: u64,
    holder: Option<SessionId>,
}

/// The state of the store.
#[derive(Debug, Default)]
pub(crate) struct Server {
    data: BTreeMap<String, Stored>,
    revision: u64,
    sessions: BTreeSet<String>,
    /// For [`Sabotage::StaleLists`]: the state as it was a while ago.
    old: BTreeMap<String, Stored>,
    old_since: u64,
    sabotage: Sabotage,
}

impl Server {
    /// An empty store.
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        Self { sabotage, ..Self::default() }
    }

    /// Executes a call.
    pub(crate) fn execute(&mut self, call: &Call) -> Answer {
        match call {
            Call::Get(key) => Answer::Entry(self.data.get(key).map(|value| entry(key, value))),
            Call::List(prefix) => Answer::Listing(self.list(prefix)),
            Call::Set { key, expected, value } => {
                let is = self.matches(key, *expected);
                if is {
                    self.put(key, value.clone());
                }
                Answer::Done(is)
            }
            Call::Transact(ops) => Answer::Outcome(self.transact(ops)),
            Call::CreateSession => {
                self.revision += 1;
                let id = format!("session-{}", self.revision);
                self.sessions.insert(id.clone());
                Answer::Session(SessionId::from(id))
            }
            Call::RenewSession(id) => Answer::Done(self.sessions.contains(&id.to_string())),
            Call::DestroySession(id) => {
                self.end_session(id);
                Answer::Done(true)
            }
            Call::Acquire { key, value, session } => {
                let held = self.data.get(key).and_then(|value| value.holder.clone());
                let free = held.is_none_or(|holder| holder == *session);
                if !free || !self.sessions.contains(&session.to_string()) {
                    return Answer::Done(false);
                }
                self.revision += 1;
                let holder = Some(session.clone());
                let stored = Stored { value: value.clone(), revision: self.revision, holder };
                self.data.insert(key.clone(), stored);
                Answer::Done(true)
            }
        }
    }

    /// Ends a session: what it held stays, held by nobody.
    pub(crate) fn end_session(&mut self, id: &SessionId) {
        self.sessions.remove(&id.to_string());
        for value in self.data.values_mut().filter(|value| value.holder.as_ref() == Some(id)) {
            value.holder = None;
            self.revision += 1;
            value.revision = self.revision;
        }
    }

    /// The value of a key, for checks of the simulation itself.
    pub(crate) fn peek(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(|value| &value.value[..])
    }

    /// The session that holds a key.
    pub(crate) fn holder(&self, key: &str) -> Option<SessionId> {
        self.data.get(key)?.holder.clone()
    }

    /// The keys below a prefix.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let from = self.data.range(prefix.to_owned()..);
        from.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    fn list(&mut self, prefix: &str) -> Listing {
        let data = if self.sabotage == Sabotage::StaleLists {
            if self.revision - self.old_since > 50 {
                self.old = self.data.clone();
                self.old_since = self.revision;
            }
            &self.old
        } else {
            &self.data
        };
        let entries = data
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| entry(key, value));
        Listing { entries: entries.collect(), cursor: Cursor::new(self.revision) }
    }

    fn matches(&self, key: &str, expected: Expected) -> bool {
        match (self.data.get(key), expected) {
            (None, Expected::Absent) => true,
            (Some(value), Expected::Revision(revision)) => {
                Revision::new(value.revision) == revision
            }
            _ => false,
        }
    }

    fn transact(&mut self, ops: &[Op]) -> TxnOutcome {
        for (place, op) in ops.iter().enumerate() {
            let fits = match op {
                Op::Set { .. } | Op::Delete { .. } => true,
                Op::Write { key, expected, .. } => self.matches(key, *expected),
                Op::Check { key, expected } => {
                    self.sabotage == Sabotage::UncheckedTransactions || self.matches(key, *expected)
                }
                Op::DeleteIf { key, revision } => {
                    self.sabotage == Sabotage::BlindDeletes
                        || self.matches(key, Expected::Revision(*revision))
                }
            };
            if !fits {
                return TxnOutcome::Conflict { op: place, what: format!("{op:?}") };
            }
        }
        for op in ops {
            match op {
                Op::Set { key, value } | Op::Write { key, value, .. } => {
                    self.put(key, value.clone());
                }
                Op::Delete { key } | Op::DeleteIf { key, .. } => {
                    self.revision += 1;
                    self.data.remove(key);
                }
                Op::Check { .. } => {}
            }
        }
        TxnOutcome::Committed
    }

    fn put(&mut self, key: &str, value: Vec<u8>) {
        // Like Consul's, a write that changes nothing leaves the revision as it is.
        if self.data.get(key).is_some_and(|old| old.value == value) {
            return;
        }
        self.revision += 1;
        let holder = self.data.get(key).and_then(|old| old.holder.clone());
        self.data.insert(key.to_owned(), Stored { value, revision: self.revision, holder });
    }
}

fn entry(key: &str, value: &Stored) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.value.clone(),
        revision: Revision::new(value.revision),
        holder: value.holder.clone(),
    }
}

/// The error of a call that got no answer.
pub(crate) fn lost() -> StoreError {
    StoreError::Unreachable { store: "simulated store".into(), cause: "no answer came".into() }
}
