//! The cluster store of the simulation: one linear history of writes.
//!
//! What makes it hostile is how calls reach it. A call is executed at one step and answered at a
//! later one, with anything in between; it may be lost, its answer may be lost, and it may be
//! executed long after its caller gave up.

use std::collections::{BTreeMap, BTreeSet};

use weft_store::{
    Cursor, Entry, Expected, Lease, Listing, Lookup, Op, Revision, StoreError, TxnOutcome,
};

/// A call to the store.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Get(String),
    List(String),
    Transact(Vec<Op>),
    GrantLease,
    RenewLease(Lease),
    RevokeLease(Lease),
    PutLeased { key: String, value: Vec<u8>, lease: Lease },
}

/// The store's answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Lookup(Lookup),
    Listing(Listing),
    Done(bool),
    Outcome(TxnOutcome),
    Lease(Lease),
    Failed,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        match self {
            Self::Transact(ops) => ops.iter().try_for_each(|op| match op {
                Op::Put { key, value } | Op::Write { key, value, .. } => {
                    write!(f, "write {key} {}; ", text(value))
                }
                Op::Delete { key } | Op::DeleteIf { key, .. } => write!(f, "delete {key}; "),
                Op::Check { key, expected } => write!(f, "check {key} {expected:?}; "),
            }),
            Self::PutLeased { key, .. } => write!(f, "put leased {key}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listing(listing) => write!(f, "{} entries", listing.entries.len()),
            Self::Lookup(lookup) => match &lookup.entry {
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
    lease: Option<Lease>,
}

/// The state of the store.
#[derive(Debug, Default)]
pub(crate) struct Server {
    data: BTreeMap<String, Stored>,
    revision: u64,
    leases: BTreeSet<String>,
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
            Call::Get(key) => Answer::Lookup(Lookup {
                entry: self.data.get(key).map(|value| entry(key, value)),
                cursor: Cursor::new(self.revision),
            }),
            Call::List(prefix) => Answer::Listing(self.list(prefix)),
            Call::Transact(ops) => Answer::Outcome(self.transact(ops)),
            Call::GrantLease => {
                self.revision += 1;
                let id = format!("lease-{}", self.revision);
                self.leases.insert(id.clone());
                Answer::Lease(Lease::new(id))
            }
            Call::RenewLease(lease) => Answer::Done(self.leases.contains(lease.id())),
            Call::RevokeLease(lease) => {
                self.end_lease(lease);
                Answer::Done(true)
            }
            Call::PutLeased { key, value, lease } => {
                if !self.leases.contains(lease.id()) {
                    return Answer::Done(false);
                }
                self.revision += 1;
                let lease = Some(lease.clone());
                let stored = Stored { value: value.clone(), revision: self.revision, lease };
                self.data.insert(key.clone(), stored);
                Answer::Done(true)
            }
        }
    }

    /// Ends a lease: its keys go with it.
    pub(crate) fn end_lease(&mut self, lease: &Lease) {
        self.leases.remove(lease.id());
        self.data.retain(|_, value| value.lease.as_ref() != Some(lease));
        self.revision += 1;
    }

    /// The value of a key, for checks of the simulation itself.
    pub(crate) fn peek(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(|value| &value.value[..])
    }

    /// The lease that a key is bound to.
    pub(crate) fn lease(&self, key: &str) -> Option<Lease> {
        self.data.get(key)?.lease.clone()
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
        for op in ops {
            let ignored = match op {
                Op::Check { .. } => self.sabotage == Sabotage::UncheckedTransactions,
                Op::DeleteIf { .. } => self.sabotage == Sabotage::BlindDeletes,
                _ => false,
            };
            let fits = op.expected().is_none_or(|expected| self.matches(op.key(), expected));
            if !fits
                && !ignored
                && let Some(conflict) = op.conflict()
            {
                return conflict;
            }
        }
        for op in ops {
            match op {
                Op::Put { key, value } | Op::Write { key, value, .. } => {
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
        let lease = self.data.get(key).and_then(|old| old.lease.clone());
        self.data.insert(key.to_owned(), Stored { value, revision: self.revision, lease });
    }
}

fn entry(key: &str, value: &Stored) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.value.clone(),
        revision: Revision::new(value.revision),
    }
}

/// The error of a call that got no answer.
pub(crate) fn lost() -> StoreError {
    StoreError::Unreachable { store: "simulated store".into(), cause: "no answer came".into() }
}
