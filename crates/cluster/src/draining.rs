//! Draining: nodes that are to get no new addresses.
//!
//! The mark stands in the node's record. A claim and a request to borrow require that record as it
//! was read, so none of them succeeds any more once the mark is written.

use weft_model::{NodeName, NodeRecord};
use weft_store::{Expected, keys, typed};

use crate::{Cluster, ClusterError};

impl Cluster {
    /// Writes into the record of `name` whether the node is drained. Returns whether that is a
    /// change.
    pub async fn set_drained(&self, name: &NodeName, drained: bool) -> Result<bool, ClusterError> {
        let key = keys::node(name);
        loop {
            let Some(entry) = self.store().get(&key).await?.entry else {
                let store = self.store().describe();
                return Err(ClusterError::NoSuchNode { node: name.clone(), store });
            };
            let record: NodeRecord = typed::decode(&entry)?;
            if record.drained == drained {
                return Ok(false);
            }
            let marked = typed::encode(&NodeRecord { drained, ..record })?;
            let expected = Expected::Revision(entry.revision);
            if self.store().compare_and_set(&key, expected, marked).await? {
                return Ok(true);
            }
        }
    }
}
