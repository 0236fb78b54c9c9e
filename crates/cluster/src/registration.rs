//! This node's record, held by the agent's session.

use std::net::IpAddr;
use std::time::Duration;

use log::debug;
use weft_model::NodeRecord;
use weft_store::{SessionId, StoreError, keys, typed};

use crate::{Cluster, ClusterError};

impl Cluster {
    /// Writes this node's record and holds it with a new session, which everybody sees as a sign of
    /// life. Writing it also ends a removal of this node that is under way.
    ///
    /// The caller is the only agent on this machine: a session of an earlier one is ended.
    pub async fn take_hold(
        &self,
        vteps: &[IpAddr],
        ttl: Duration,
    ) -> Result<SessionId, ClusterError> {
        let store = self.store();
        let key = keys::node(self.node());
        if let Some(entry) = store.get(&key).await? {
            let known: NodeRecord = typed::decode(&entry)?;
            self.check_machine(&known)?;
            if let Some(session) = entry.holder {
                debug!("ending session {session} of an earlier agent");
                store.destroy_session(&session).await?;
            }
        }
        let session = store.create_session(&format!("weftd on {}", self.node()), ttl).await?;
        let record = typed::encode(&self.own_record(vteps))?;
        if store.acquire(&key, record, &session).await? {
            return Ok(session);
        }
        store.destroy_session(&session).await?;
        Err(ClusterError::Store(StoreError::Unreachable {
            store: store.describe(),
            cause: format!("somebody else holds the record of node {}", self.node()),
        }))
    }
}
