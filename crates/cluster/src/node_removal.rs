//! Removing a node from the cluster.

use std::collections::BTreeSet;

use log::info;
use weft_model::block::{BlockRecord, MoveRecord};
use weft_model::{Endpoint, LoanRecord, Network, NetworkId, NodeName, NodeRecord};
use weft_store::{Entry, Expected, Op, TxnOutcome, keys, typed};

use crate::cluster::unchanged;
use crate::{Cluster, ClusterError};

/// The result of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Blocks that the node owned.
    pub blocks: usize,
    /// Addresses that it had borrowed, and its other endpoints.
    pub endpoints: usize,
}

/// Conditions under which a removal goes on: the node's record is as the removal left it, and the
/// node has no heartbeat.
struct Guard {
    record: Op,
    heartbeat: Op,
}

impl Guard {
    fn ops(&self, deletions: &[Op]) -> Vec<Op> {
        [std::slice::from_ref(&self.record), std::slice::from_ref(&self.heartbeat), deletions]
            .concat()
    }

    fn is_about(&self, key: &str) -> bool {
        key == self.record.key() || key == self.heartbeat.key()
    }
}

impl Cluster {
    /// Takes everything from a node that is gone for good: its blocks, what it borrowed, its
    /// record. Refused while the node's agent is alive.
    ///
    /// First the record is marked: from then on the node cannot claim. Every deletion requires the
    /// record as this wrote it and no heartbeat, so the removal ends when the node's agent comes
    /// back and writes its record again. A node that was only cut off finds out then what it has
    /// lost.
    pub async fn remove_node(&self, name: &NodeName) -> Result<Removed, ClusterError> {
        let guard = self.mark_for_removal(name).await?;
        // Requests first: one that is granted later would leave an endpoint behind.
        let requests = self.store().list(keys::requests_prefix()).await?.entries;
        let own = |record: &LoanRecord| record.borrower == *name || record.lender == *name;
        self.delete_those(name, &guard, requests.clone(), own).await?;
        let own = |record: &MoveRecord| record.owner == *name || record.to == *name;
        self.delete_those(name, &guard, requests, own).await?;
        let mut removed = Removed::default();
        let marks = self.store().list(&keys::owned_prefix(name)).await?.entries;
        let mut networks: BTreeSet<NetworkId> =
            marks.iter().filter_map(|entry| keys::owned_of(&entry.key)).collect();
        networks.extend(self.networks().await?.iter().map(Network::id));
        for network in &networks {
            let blocks = self.store().list(&keys::blocks_prefix(network)).await?.entries;
            let own = |record: &BlockRecord| record.node == *name;
            removed.blocks += self.delete_those(name, &guard, blocks, own).await?;
            let endpoints = self.store().list(&keys::endpoints_prefix(network)).await?.entries;
            let own = |endpoint: &Endpoint| endpoint.node == *name;
            removed.endpoints += self.delete_those(name, &guard, endpoints, own).await?;
        }
        for mark in &marks {
            self.delete_guarded(name, &guard, &[Op::delete_if(&mark.key, mark.revision)]).await?;
        }
        for network in &networks {
            self.forget_if_left(network).await?;
        }
        if let Op::Check { key, expected: Expected::Revision(revision) } = &guard.record {
            let usage = Op::delete(keys::usage(name));
            let ops = [Op::delete_if(key, *revision), guard.heartbeat.clone(), usage];
            if self.store().transact(&ops).await? != TxnOutcome::Committed {
                return Err(ClusterError::NodeBack { node: name.clone() });
            }
        } else if removed == Removed::default() {
            let store = self.store().describe();
            return Err(ClusterError::NoSuchNode { node: name.clone(), store });
        }
        info!("node {name} is removed, with {} blocks", removed.blocks);
        Ok(removed)
    }

    /// Marks the record, if there is one, and returns what must hold while the removal goes on.
    async fn mark_for_removal(&self, name: &NodeName) -> Result<Guard, ClusterError> {
        let key = keys::node(name);
        let heartbeat = Op::check(keys::alive(name), Expected::Absent);
        loop {
            let record = self.store().get(&key).await?.entry;
            if self.is_alive(name).await? {
                return Err(ClusterError::NodeAlive { node: name.clone() });
            }
            let Some(entry) = record else {
                // An earlier removal may have been cut short after the record was gone.
                return Ok(Guard { record: Op::check(key, Expected::Absent), heartbeat });
            };
            let record = match typed::decode::<NodeRecord>(&entry) {
                Ok(record) if !record.removing => record,
                // With one that cannot be read the node cannot claim either, before its agent has
                // written it again. It stays as it is: nothing tells which machine it is of, and
                // should the removal be cut short, any other would take the name from that one.
                _ => return Ok(Guard { record: unchanged(key, entry.revision), heartbeat }),
            };
            let marked = typed::encode(&NodeRecord { removing: true, ..record })?;
            let expected = Expected::Revision(entry.revision);
            self.store().compare_and_set(&key, expected, marked).await?;
        }
    }

    /// Deletes entries as they were read, as long as the guard holds. Those that have changed since
    /// are no longer the node's.
    async fn delete_those<R: serde::de::DeserializeOwned>(
        &self,
        name: &NodeName,
        guard: &Guard,
        entries: Vec<Entry>,
        matches: impl Fn(&R) -> bool,
    ) -> Result<usize, ClusterError> {
        let mut deletions = vec![];
        for entry in entries {
            let Ok(record) = typed::decode(&entry) else { continue };
            if matches(&record) {
                deletions.push(Op::delete_if(entry.key, entry.revision));
            }
        }
        let mut deleted = 0;
        let nonce = self.environment().random();
        for part in keys::in_transactions(deletions, guard.ops(&[]).len(), nonce) {
            let of_part = part.iter().filter(|op| matches!(op, Op::DeleteIf { .. }));
            if self.delete_guarded(name, guard, &part).await? {
                deleted += of_part.count();
                continue;
            }
            for op in of_part {
                let alone = self.with_revisions(vec![op.clone()]);
                deleted += usize::from(self.delete_guarded(name, guard, &alone).await?);
            }
        }
        Ok(deleted)
    }

    /// Carries out deletions while the guard holds. Returns whether they happened.
    async fn delete_guarded(
        &self,
        name: &NodeName,
        guard: &Guard,
        deletions: &[Op],
    ) -> Result<bool, ClusterError> {
        match self.store().transact(&guard.ops(deletions)).await? {
            TxnOutcome::Committed => Ok(true),
            TxnOutcome::Conflict { key, .. } if guard.is_about(&key) => {
                Err(ClusterError::NodeBack { node: name.clone() })
            }
            TxnOutcome::Conflict { .. } => Ok(false),
        }
    }
}
