//! Removing a node from the cluster.

use log::info;
use weft_model::block::BlockRecord;
use weft_model::{Endpoint, LoanRecord, NodeName, NodeRecord};
use weft_store::{Entry, Expected, MAX_OPS, Op, TxnOutcome, keys, typed};

use crate::networks::unchanged;
use crate::{Cluster, ClusterError};

/// What the cluster has back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Blocks that the node owned.
    pub blocks: usize,
    /// Addresses that it had borrowed, and others that it had told of.
    pub endpoints: usize,
}

impl Cluster {
    /// Takes everything from a node that is gone for good: its blocks, what it borrowed, its record.
    /// Refused while the node's agent is alive.
    ///
    /// First the record says that the node is being removed: from then on it can't claim. Every
    /// deletion requires that the record is as this wrote it, so it ends the removal when the node's
    /// agent comes back and writes its record anew. A node that was only cut off finds out then what
    /// it has lost; see [`crate::claims::verify`].
    pub async fn remove_node(&self, name: &NodeName) -> Result<Removed, ClusterError> {
        let guard = self.mark_for_removal(name).await?;
        let mut removed = Removed::default();
        for network in self.networks().await? {
            let network = network.name();
            let blocks = self.store().list(&keys::blocks_prefix(network)).await?.entries;
            let own = |record: &BlockRecord| record.node == *name;
            removed.blocks += self.delete_those(name, &guard, blocks, own).await?;
            let endpoints = self.store().list(&keys::endpoints_prefix(network)).await?.entries;
            let own = |endpoint: &Endpoint| endpoint.node == *name;
            removed.endpoints += self.delete_those(name, &guard, endpoints, own).await?;
            let requests = self.store().list(&keys::requests_prefix(network)).await?.entries;
            let own = |record: &LoanRecord| record.borrower == *name;
            self.delete_those(name, &guard, requests, own).await?;
        }
        if let Op::Check { key, expected: Expected::Revision(revision) } = guard {
            let op = Op::DeleteIf { key, revision };
            if self.store().transact(&[op]).await? != TxnOutcome::Committed {
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
    async fn mark_for_removal(&self, name: &NodeName) -> Result<Op, ClusterError> {
        let key = keys::node(name);
        loop {
            let Some(entry) = self.store().get(&key).await? else {
                // An earlier removal may have been cut short after the record was gone.
                return Ok(Op::check(key, Expected::Absent));
            };
            if entry.holder.is_some() {
                return Err(ClusterError::NodeAlive { node: name.clone() });
            }
            let record: NodeRecord = typed::decode(&entry)?;
            if record.removing {
                return Ok(unchanged(key, entry.revision));
            }
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
        guard: &Op,
        entries: Vec<Entry>,
        matches: impl Fn(&R) -> bool,
    ) -> Result<usize, ClusterError> {
        let mut deletions = vec![];
        for entry in entries {
            if matches(&typed::decode(&entry)?) {
                deletions.push(Op::DeleteIf { key: entry.key, revision: entry.revision });
            }
        }
        let mut deleted = 0;
        for chunk in deletions.chunks(MAX_OPS - 1) {
            let guarded = |ops: &[Op]| [std::slice::from_ref(guard), ops].concat();
            if self.store().transact(&guarded(chunk)).await? == TxnOutcome::Committed {
                deleted += chunk.len();
                continue;
            }
            for op in chunk {
                match self.store().transact(&guarded(std::slice::from_ref(op))).await? {
                    TxnOutcome::Committed => deleted += 1,
                    TxnOutcome::Conflict { op: 0, .. } => {
                        return Err(ClusterError::NodeBack { node: name.clone() });
                    }
                    TxnOutcome::Conflict { .. } => {}
                }
            }
        }
        Ok(deleted)
    }
}
