use std::sync::Arc;

use tempfile::TempDir;
use weft_cluster::environment::Real;
use weft_cluster::networks;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Block, StickyRecord};
use weft_model::{ContainerId, HostNumber, IfName, NetworkId, NetworkName, NetworkSpec, PoolIndex};
use weft_store::{Entry, LocalStore, Op, keys, typed};

use super::*;
use crate::address::{self, AddressRequest};

/// A node with network `red` on an embedded store.
struct Node {
    dir: TempDir,
    cluster: Cluster,
}

fn red() -> NetworkName {
    "red".parse().unwrap()
}

fn sticky(identity: &str) -> Sticky {
    Sticky { identity: identity.into(), keep: 3600 }
}

fn holder(id: &str) -> Holder {
    let ifname = IfName::new("eth0").unwrap();
    Holder::Attachment { container_id: ContainerId::new(id).unwrap(), ifname }
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(LocalStore::new(dir.path().join("store")));
        let (node, machine) = ("a".parse().unwrap(), "machine".into());
        Self { cluster: Cluster::simulated(store, node, machine, Arc::new(Real::default())), dir }
    }

    async fn add(&self, id: &str, identity: &str) -> String {
        let ipv4 = Some(FamilyRecord::new("10.9.0.0/24".parse().unwrap()));
        let pools = vec![PoolRecord { ipv4, ..PoolRecord::default() }];
        let request = AddressRequest {
            network: red(),
            spec: NetworkSpec { pools, ..NetworkSpec::default() },
            holder: holder(id),
            wanted: vec![],
            sandbox: None,
            sticky: Some(sticky(identity)),
        };
        let (dir, cluster) = (self.dir.path(), &self.cluster);
        let grant = address::acquire(dir, || Ok(cluster.clone()), &request, &|| true).await;
        grant.unwrap().reservation().shown()
    }

    fn id(&self) -> NetworkId {
        networks::cached(self.dir.path(), &red()).unwrap().unwrap().id()
    }

    async fn entry(&self, key: &str) -> Option<Entry> {
        self.cluster.store().get(key).await.unwrap().entry
    }

    async fn write(&self, key: String, record: &StickyRecord) {
        let op = Op::put(key, typed::encode(record).unwrap());
        self.cluster.store().transact(&[op]).await.unwrap();
    }

    fn ledger(&self) -> Ledger {
        let network = networks::cached(self.dir.path(), &red()).unwrap().unwrap();
        Ledger::open(self.dir.path(), network).unwrap()
    }
}

#[tokio::test]
async fn a_record_of_another_identity_is_neither_followed_nor_touched() {
    let node = Node::new();
    let kept = node.add("db", "prod/db-0").await;
    node.ledger().release(&holder("db")).unwrap();
    let own = node.entry(&keys::identity(&node.id(), sticky("prod/db-0").id())).await.unwrap();
    // As if both had one id.
    let evils = keys::identity(&node.id(), sticky("evil/x").id());
    node.write(evils.clone(), &typed::decode(&own).unwrap()).await;
    let planted = node.entry(&evils).await;

    let other = node.add("x", "evil/x").await;
    assert_ne!(other, kept);
    assert_eq!(node.entry(&evils).await, planted);
    node.ledger().release(&holder("x")).unwrap();
    assert!(!node.ledger().keeps_for(&sticky("evil/x")).unwrap());
    assert_eq!(node.add("db2", "prod/db-0").await, kept);
}

#[tokio::test]
async fn the_end_of_an_identity_leaves_another_ones_record() {
    let node = Node::new();
    let address = node.add("db", "evil/x").await;
    let key = keys::identity(&node.id(), sticky("evil/x").id());
    let record: StickyRecord = typed::decode(&node.entry(&key).await.unwrap()).unwrap();
    node.write(key.clone(), &StickyRecord { sticky: sticky("prod/db-0"), ..record }).await;
    let planted = node.entry(&key).await;
    let mut held = node.ledger().reservation(&holder("db")).unwrap().unwrap();
    held.sticky = Some(Sticky { keep: 1, ..sticky("evil/x") });
    let file = node.ledger().dir().reservations().join("db@eth0");
    weft_files::json::store(&file, &held).unwrap();
    node.ledger().release(&holder("db")).unwrap();
    while node.ledger().expired().unwrap().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    identities::expire(&node.cluster, &node.ledger()).await.unwrap();
    assert_eq!(node.entry(&key).await, planted, "after {address}");
    assert_eq!(node.ledger().kept(&sticky("evil/x")).unwrap(), None);
}

#[tokio::test]
async fn a_record_under_the_key_of_another_id_keeps_nothing() {
    let node = Node::new();
    node.add("db", "prod/db-0").await;
    let block: Block = "0-16-4".parse().unwrap();
    let (pool, host) = (PoolIndex::new(0).unwrap(), HostNumber::new(17));
    for (key, identity) in [("evil/x", "prod/db-0"), ("web", "web")] {
        let record = StickyRecord { sticky: sticky(identity), pool, host };
        node.write(keys::sticky(&node.id(), &block, sticky(key).id()), &record).await;
    }
    let kept = identities::of_block(&node.cluster, &node.id(), &block).await.unwrap();
    assert_eq!(kept, [(host, sticky("web"))]);
}
