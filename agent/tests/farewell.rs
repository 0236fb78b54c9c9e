//! The end of an agent that nothing forces.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use weft_cluster::environment::Real;
use weft_cluster::{Cluster, NodeConfig};
use weft_model::NodeName;
use weft_store::{
    Change, Cursor, Entry, Lease, Listing, LocalStore, Lookup, Op, Store, StoreError, TxnOutcome,
    keys,
};

/// A local store whose answer to the end of a lease is late: what the end changes is seen before.
struct Late(LocalStore);

#[async_trait::async_trait]
impl Store for Late {
    async fn get(&self, key: &str) -> Result<Lookup, StoreError> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.0.list(prefix).await
    }

    async fn wait_key(
        &self,
        key: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Option<Entry>>, StoreError> {
        self.0.wait_key(key, cursor, wait).await
    }

    async fn wait_prefix(
        &self,
        prefix: &str,
        cursor: &Cursor,
        wait: Duration,
    ) -> Result<Change<Vec<Entry>>, StoreError> {
        self.0.wait_prefix(prefix, cursor, wait).await
    }

    async fn commit(&self, ops: &[Op]) -> Result<TxnOutcome, StoreError> {
        self.0.commit(ops).await
    }

    async fn grant_lease(&self, name: &str, ttl: Duration) -> Result<Lease, StoreError> {
        self.0.grant_lease(name, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.0.renew_lease(lease).await
    }

    async fn revoke_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let ended = self.0.revoke_lease(lease).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        ended
    }

    async fn put_leased(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: &Lease,
    ) -> Result<bool, StoreError> {
        self.0.put_leased(key, value, lease).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.0.check().await
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn is_single_node(&self) -> bool {
        self.0.is_single_node()
    }
}

#[tokio::test]
async fn an_agent_that_ends_does_not_register_itself_again() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("weft.toml");
    let text = format!("node = \"n\"\ndata_dir = \"{}/data\"\n", dir.path().display());
    std::fs::write(&path, text).unwrap();
    let config = NodeConfig::load(Some(&path), |_| None).unwrap();
    let node = NodeName::new("n").unwrap();
    let store: Arc<dyn Store> = Arc::new(Late(LocalStore::new(dir.path().join("store"))));
    let cluster = Cluster::simulated(
        store.clone(),
        node.clone(),
        "machine".into(),
        Arc::new(Real::default()),
    );
    let alive = async || store.get(&keys::alive(&node)).await.unwrap().entry.is_some();
    let stop = async {
        while !alive().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The watches show it, too.
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    weftd::run(config, cluster, stop).await.unwrap();
    assert!(!alive().await);
}
