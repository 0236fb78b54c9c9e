//! The identity of the cluster store's contents: how a node notices that a store was emptied.
//!
//! The key `store` holds a random number that is made with the first record, and every node notes
//! it. A store that lacks it, or has another, is not the one whose records this node lives by: what
//! it does not show is no order to remove anything, and what it shows as free may be in use. Nodes
//! then write back what is their own, and until that is done nobody claims.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use serde::{Deserialize, Serialize};
use weft_files::{self as files, FileError};
use weft_store::{Expected, Revision, keys, typed};

use crate::{Cluster, ClusterError};

/// A random number that the contents of a store are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = std::num::ParseIntError;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(value, 16).map(Self)
    }
}

impl Serialize for StoreId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The record behind the key `store`, and a node's note of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRecord {
    /// The identity.
    pub id: StoreId,
    /// Set while nodes write back what an emptied store has lost.
    #[serde(default)]
    pub recovering: bool,
}

/// The store as this node's note shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// The one that this node knows, or the first that it sees.
    Intact,
    /// The one that this node knows; nodes are writing back what it has lost.
    Recovering,
    /// It lacks what this node has written, or is another.
    Lost,
}

/// This node's note of the store's identity: a file, unless the node is simulated.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    path: Option<PathBuf>,
    known: Arc<Mutex<Option<StoreId>>>,
}

impl Note {
    /// The note below a node's data directory.
    pub(crate) fn below(data_dir: &Path) -> Self {
        Self { path: Some(data_dir.join("store.json")), known: Arc::default() }
    }

    fn get(&self) -> Option<StoreId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none()
            && let Some(path) = &self.path
        {
            // One that cannot be read counts as none: the node takes the store as it is.
            *known = files::json::load(path).ok().flatten().map(|record: StoreRecord| record.id);
        }
        *known
    }

    fn set(&self, id: StoreId) -> Result<(), FileError> {
        if self.get() == Some(id) {
            return Ok(());
        }
        if let Some(path) = &self.path {
            files::json::store(path, &StoreRecord { id, recovering: false })?;
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        Ok(())
    }
}

impl Cluster {
    /// The store's record of its identity, with its revision.
    async fn store_record(&self) -> Result<Option<(StoreRecord, Revision)>, ClusterError> {
        let entry = self.store().get(keys::store()).await?.entry;
        let Some(entry) = entry else { return Ok(None) };
        Ok(Some((typed::decode(&entry)?, entry.revision)))
    }

    /// The state of the store. The first store that a node meets is the one that it knows from then
    /// on; one without an identity gets one.
    pub async fn store_state(&self) -> Result<StoreState, ClusterError> {
        if self.is_single_node() {
            return Ok(StoreState::Intact);
        }
        loop {
            return Ok(match (self.store_record().await?, self.note().get()) {
                (Some((record, _)), known) if known.is_none_or(|known| known == record.id) => {
                    self.note().set(record.id)?;
                    if record.recovering { StoreState::Recovering } else { StoreState::Intact }
                }
                (None, None) => {
                    let id = StoreId(self.environment().random());
                    self.put_store_record(Expected::Absent, id, false).await?;
                    continue;
                }
                (_, _) => StoreState::Lost,
            });
        }
    }

    /// Fails unless the store is the one that this node knows, and complete.
    pub async fn check_store(&self) -> Result<(), ClusterError> {
        let store = || self.store().describe();
        match self.store_state().await? {
            StoreState::Intact => Ok(()),
            StoreState::Recovering => Err(ClusterError::Recovering { store: store() }),
            StoreState::Lost => Err(ClusterError::StoreLost { store: store() }),
        }
    }

    /// Has all nodes write back what an emptied store has lost, and claim nothing until
    /// [`end_recovery`](Self::end_recovery).
    pub async fn begin_recovery(&self) -> Result<StoreId, ClusterError> {
        loop {
            let (expected, id) = match self.store_record().await? {
                None => (Expected::Absent, StoreId(self.environment().random())),
                Some((record, _)) if record.recovering => return Ok(record.id),
                Some((record, revision)) => (Expected::Revision(revision), record.id),
            };
            if self.put_store_record(expected, id, true).await? {
                warn!("the {} is not the one that this node knew", self.store().describe());
                return Ok(id);
            }
        }
    }

    /// Notes that this node has written back all that is its own.
    pub fn join_store(&self, id: StoreId) -> Result<(), ClusterError> {
        Ok(self.note().set(id)?)
    }

    /// Lets nodes claim again.
    pub async fn end_recovery(&self) -> Result<(), ClusterError> {
        if let Some((record, revision)) = self.store_record().await?
            && record.recovering
        {
            self.put_store_record(Expected::Revision(revision), record.id, false).await?;
        }
        Ok(())
    }

    async fn put_store_record(
        &self,
        expected: Expected,
        id: StoreId,
        recovering: bool,
    ) -> Result<bool, ClusterError> {
        let value = typed::encode(&StoreRecord { id, recovering })?;
        Ok(self.store().compare_and_set(keys::store(), expected, value).await?)
    }
}
