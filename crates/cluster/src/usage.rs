//! Reports of nodes about the use of their blocks: for people, through any node.
//!
//! A report stays when the node's agent ends. No node watches the reports.

use std::collections::BTreeMap;

use weft_model::{NodeName, UsageRecord};
use weft_store::{Op, TxnOutcome, keys, typed};

use crate::cluster::unchanged;
use crate::view::read;
use crate::{Cluster, ClusterError};

impl Cluster {
    /// The reports of all nodes. One that cannot be read is left out.
    pub async fn usage_records(&self) -> Result<BTreeMap<NodeName, UsageRecord>, ClusterError> {
        let entries = self.store().list(keys::usage_prefix()).await?.entries;
        let records = read(&entries, keys::usage_of).into_iter();
        Ok(records.map(|(node, stored)| (node, stored.record)).collect())
    }

    /// The report of this node that the store has.
    pub async fn own_usage(&self) -> Result<Option<UsageRecord>, ClusterError> {
        let entry = self.store().get(&keys::usage(self.node())).await?.entry;
        Ok(read(entry.as_slice(), keys::usage_of).remove(self.node()).map(|stored| stored.record))
    }

    /// Writes this node's report. Returns whether it did: the node's record must be there, so that
    /// a node that was removed leaves no report behind.
    pub async fn publish_usage(&self, record: &UsageRecord) -> Result<bool, ClusterError> {
        let node = keys::node(self.node());
        let Some(own) = self.store().get(&node).await?.entry else { return Ok(false) };
        let report = Op::put(keys::usage(self.node()), typed::encode(record)?);
        let ops = [unchanged(node, own.revision), report];
        Ok(self.store().transact(&ops).await? == TxnOutcome::Committed)
    }
}
