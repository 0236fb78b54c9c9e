//! Removing a node from the cluster.

use log::info;
use weft_model::block::BlockRecord;
use weft_model::{Endpoint, LoanRecord, NodeName};
use weft_store::{Entry, MAX_OPS, Op, TxnOutcome, keys, typed};

use crate::{Cluster, NodeError};

/// What the cluster has back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Blocks that the node owned.
    pub blocks: usize,
    /// Addresses that it had borrowed, and others that it had told of.
    pub endpoints: usize,
    /// What came to be written anew while it was being removed: the node is back.
    pub kept: usize,
}

impl Cluster {
    /// Takes everything from a node that is gone for good: its record, its blocks, what it borrowed.
    /// Refused while the node's agent is alive.
    ///
    /// The record goes first, and with it the node's right to claim. A node that was only cut off
    /// finds out when it comes back; see [`crate::claims::verify`].
    pub async fn remove_node(&self, name: &NodeName) -> Result<Removed, NodeError> {
        let key = keys::node(name);
        let mut known = false;
        while let Some(entry) = self.store().get(&key).await? {
            known = true;
            if entry.holder.is_some() {
                return Err(NodeError::NodeAlive { node: name.clone() });
            }
            let op = Op::DeleteIf { key: key.clone(), revision: entry.revision };
            if self.store().transact(&[op]).await? == TxnOutcome::Committed {
                break;
            }
        }
        let mut removed = Removed::default();
        for network in self.networks().await? {
            let network = network.name();
            let blocks = self.store().list(&keys::blocks_prefix(network)).await?.entries;
            let own = |record: &BlockRecord| record.node == *name;
            removed.blocks += self.delete_those(blocks, own, &mut removed.kept).await?;
            let endpoints = self.store().list(&keys::endpoints_prefix(network)).await?.entries;
            let own = |endpoint: &Endpoint| endpoint.node == *name;
            removed.endpoints += self.delete_those(endpoints, own, &mut removed.kept).await?;
            let requests = self.store().list(&keys::requests_prefix(network)).await?.entries;
            let own = |record: &LoanRecord| record.borrower == *name;
            self.delete_those(requests, own, &mut removed.kept).await?;
        }
        if !known && removed == Removed::default() {
            let store = self.store().describe();
            return Err(NodeError::NoSuchNode { node: name.clone(), store });
        }
        info!("node {name} is removed, with {} blocks", removed.blocks);
        Ok(removed)
    }

    /// Deletes entries as they were read; those that have changed since are left and counted.
    async fn delete_those<R: serde::de::DeserializeOwned>(
        &self,
        entries: Vec<Entry>,
        matches: impl Fn(&R) -> bool,
        kept: &mut usize,
    ) -> Result<usize, NodeError> {
        let mut ops = vec![];
        for entry in entries {
            if matches(&typed::decode(&entry)?) {
                ops.push(Op::DeleteIf { key: entry.key, revision: entry.revision });
            }
        }
        let mut deleted = 0;
        for chunk in ops.chunks(MAX_OPS) {
            if self.store().transact(chunk).await? == TxnOutcome::Committed {
                deleted += chunk.len();
                continue;
            }
            for op in chunk {
                match self.store().transact(std::slice::from_ref(op)).await? {
                    TxnOutcome::Committed => deleted += 1,
                    TxnOutcome::Conflict { .. } => *kept += 1,
                }
            }
        }
        Ok(deleted)
    }
}
