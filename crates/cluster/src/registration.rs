//! This node's record, and the heartbeat that its agent keeps up.
//!
//! The record `nodes/<node>` says where to send this node's packets. It stays when the agent stops:
//! the blocks of a node that is down are still its own. The heartbeat `alive/<node>` is bound to a
//! lease, and vanishes with it.

use std::net::IpAddr;
use std::time::Duration;

use log::warn;
use weft_model::NodeRecord;
use weft_store::{Expected, Lease, Revision, keys, typed};

use crate::{Cluster, ClusterError};

/// Attempts to write the own record, which may change meanwhile.
const REGISTER_TRIES: usize = 16;

/// Use of an existing record while registering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// A removal of this node that is under way is an error.
    Respect,
    /// Writing the record ends a removal that is under way.
    End,
}

/// This node according to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The last write of the record.
    pub revision: Revision,
    /// True if the node must not get new addresses: [`NodeRecord::drained`].
    pub drained: bool,
}

impl Cluster {
    /// The record of this node with these VTEPs.
    pub fn own_record(&self, vteps: &[IpAddr]) -> NodeRecord {
        NodeRecord {
            machine_id: self.machine_id().to_owned(),
            vteps: vteps.to_vec(),
            port: self.port(),
            removing: false,
            drained: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Makes sure that the cluster knows this node by its name, and returns what its record says
    /// of it. With `vteps`, the record has them afterwards; without, it keeps those it has.
    ///
    /// Another machine's record under the same name is an error that names both.
    pub async fn register(&self, vteps: Option<&[IpAddr]>) -> Result<Registered, ClusterError> {
        self.write_record(vteps, Removal::Respect).await
    }

    /// Registers this node and starts its heartbeat under a new lease, which the caller renews.
    /// Ends a removal of this node that is under way.
    ///
    /// The caller is the only agent on this machine: it takes the heartbeat of an earlier one over.
    pub async fn start_heartbeat(
        &self,
        vteps: &[IpAddr],
        ttl: Duration,
    ) -> Result<Lease, ClusterError> {
        self.write_record(Some(vteps), Removal::End).await?;
        let store = self.store();
        let lease = store.grant_lease(&format!("weftd on {}", self.node()), ttl).await?;
        let value = typed::encode(&self.machine_id())?;
        match store.put_leased(&keys::alive(self.node()), value, &lease).await {
            Ok(true) => return Ok(lease),
            Ok(false) => {}
            Err(error) => {
                // The next attempt is granted one of its own: without the right to write the key,
                // each would leave one behind. What fails here ends by itself.
                let _ = store.revoke_lease(&lease).await;
                return Err(error.into());
            }
        }
        Err(ClusterError::LeaseEnded { node: self.node().clone(), store: store.describe() })
    }

    async fn write_record(
        &self,
        vteps: Option<&[IpAddr]>,
        removal: Removal,
    ) -> Result<Registered, ClusterError> {
        match (removal, self.check_store().await) {
            // The agent's record is one of those that are written back.
            (Removal::End, Err(ClusterError::Recovering { .. })) => {}
            (_, checked) => checked?,
        }
        self.claim_name()?;
        let key = keys::node(self.node());
        for _ in 0..REGISTER_TRIES {
            let (expected, record) = match self.store().get(&key).await?.entry {
                None => (Expected::Absent, self.own_record(vteps.unwrap_or_default())),
                Some(entry) => {
                    let known: NodeRecord = match typed::decode(&entry) {
                        Ok(known) => known,
                        // The agent knows what should be there.
                        Err(error) if vteps.is_some() => {
                            warn!("{error}; it is written again");
                            // No record has an empty version: this one is never kept.
                            NodeRecord { version: String::new(), ..self.own_record(&[]) }
                        }
                        Err(error) => return Err(error.into()),
                    };
                    self.check_machine(&known)?;
                    if known.removing && removal == Removal::Respect {
                        return Err(ClusterError::BeingRemoved { node: self.node().clone() });
                    }
                    // An underlay that cannot be found at the moment is no reason to tell the
                    // others that this node has none.
                    let vteps = vteps.filter(|vteps| !vteps.is_empty());
                    let own = self.own_record(vteps.unwrap_or(&known.vteps));
                    // Only `weftctl node undrain` ends it.
                    let wanted = NodeRecord { drained: known.drained, ..own };
                    if wanted == known || (vteps.is_none() && removal == Removal::Respect) {
                        let drained = known.drained;
                        return Ok(Registered { revision: entry.revision, drained });
                    }
                    (Expected::Revision(entry.revision), wanted)
                }
            };
            self.store().compare_and_set(&key, expected, typed::encode(&record)?).await?;
        }
        Err(ClusterError::RecordContended {
            node: self.node().clone(),
            store: self.store().describe(),
            tries: REGISTER_TRIES,
        })
    }

    /// Refuses the record of another machine under this node's name.
    fn check_machine(&self, known: &NodeRecord) -> Result<(), ClusterError> {
        if known.machine_id == self.machine_id() {
            return Ok(());
        }
        Err(ClusterError::NameTaken {
            node: self.node().clone(),
            holder: known.machine_id.clone(),
            own: self.machine_id().to_owned(),
        })
    }
}
