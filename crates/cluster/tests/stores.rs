//! The cluster on a store: an embedded one, and a real Consul (ignored by default; the program
//! that `WEFT_TEST_CONSUL` names).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the contract of the store, which uses all of it")]
#[path = "../../store/tests/contract/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use weft_cluster::environment::Real;
use weft_cluster::{Cluster, ClusterError, Members, NetworkView, Watcher};
use weft_model::block::BlockRecord;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{
    Block, Endpoint, Network, NetworkName, NetworkSpec, NodeName, Usage, UsageRecord,
};
use weft_store::{Expected, LocalStore, Op, Store, TxnOutcome, keys, typed};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(30);

/// Changes that a test makes.
const CHANGES: usize = 120;

fn cluster(store: Arc<dyn Store>) -> Cluster {
    let node = NodeName::new("watching").unwrap();
    Cluster::simulated(store, node, "machine".into(), Arc::new(Real::default()))
}

async fn create(cluster: &Cluster, name: &str, subnet: &str) -> Network {
    let ipv4 = Some(FamilyRecord::new(subnet.parse().unwrap()));
    let pools = vec![PoolRecord { ipv4, ..PoolRecord::default() }];
    let spec = NetworkSpec { pools, ..NetworkSpec::default() };
    cluster.create_network(&NetworkName::new(name).unwrap(), &spec).await.unwrap()
}

/// One change of a block and of an endpoint in it: both come, or both go.
async fn change(cluster: &Cluster, network: &Network, block: Block, number: usize) {
    let id = network.id();
    let key = keys::block(&id, &block);
    let addresses = network.addresses_of(block).next().unwrap();
    let endpoint_key = keys::endpoint(&id, &block, addresses.iter().next().unwrap());
    let lookup = cluster.store().get(&key).await.unwrap();
    let ops = match lookup.entry {
        Some(entry) => vec![Op::delete_if(key, entry.revision), Op::delete(endpoint_key)],
        None => {
            let node = NodeName::new(format!("node-{number}")).unwrap();
            let record = BlockRecord { node: node.clone(), generation: 0 };
            let endpoint = Endpoint { node, mac: addresses.mac, lender: None, loan: None };
            vec![
                Op::create(key, typed::encode(&record).unwrap()),
                Op::create(endpoint_key, typed::encode(&endpoint).unwrap()),
            ]
        }
    };
    let ops = cluster.with_revisions(ops);
    assert_eq!(cluster.store().transact(&ops).await.unwrap(), TxnOutcome::Committed);
}

/// Two networks change at random places while one is followed from the start and the other from the
/// middle on: in the end the watcher shows what the store has.
async fn follows_every_change(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    let early = create(&cluster, "early", "10.1.0.0/16").await;
    let late = create(&cluster, "late", "10.2.0.0/16").await;
    let watcher = Watcher::start(&cluster);
    let mut views = vec![(early.clone(), watcher.network(&early.id()))];
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..CHANGES {
        if number == CHANGES / 2 {
            views.push((late.clone(), watcher.network(&late.id())));
        }
        let network = if random.bool() { &early } else { &late };
        let (index, pool) = network.pools().next().unwrap();
        // Few blocks of several groups, so that the same block comes and goes.
        let place = random.usize(..12) * 23;
        let block = Block::all_of(index, pool).nth(place).unwrap();
        change(&cluster, network, block, number).await;
    }
    for (network, mut watched) in views {
        let stored = cluster.network_view(&network.id()).await.unwrap();
        assert!(stored.blocks.len() > 2, "the test leaves blocks to compare");
        let is_same = |view: &Option<Arc<NetworkView>>| view.as_deref() == Some(&stored);
        let same = tokio::time::timeout(LONG, watched.wait_for(is_same)).await;
        assert!(matches!(same, Ok(Ok(_))), "network {} differs for good", network.name());
    }
}

/// A change in one network does not wake those who follow another.
async fn changes_wake_only_their_network(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    let red = create(&cluster, "red", "10.1.0.0/16").await;
    let blue = create(&cluster, "blue", "10.2.0.0/16").await;
    let watcher = Watcher::start(&cluster);
    let (mut of_red, mut of_blue) = (watcher.network(&red.id()), watcher.network(&blue.id()));
    for watched in [&mut of_red, &mut of_blue] {
        tokio::time::timeout(LONG, watched.wait_for(Option::is_some)).await.unwrap().unwrap();
    }
    let (index, pool) = red.pools().next().unwrap();
    change(&cluster, &red, Block::all_of(index, pool).next().unwrap(), 1).await;
    let has_block =
        |view: &Option<Arc<NetworkView>>| view.as_ref().is_some_and(|view| view.blocks.len() == 1);
    tokio::time::timeout(LONG, of_red.wait_for(has_block)).await.unwrap().unwrap();
    assert!(!of_blue.has_changed().unwrap());
}

/// A node is alive while it has a heartbeat, and stays known when its lease has ended.
async fn members_follow_heartbeats(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    let mut members = Watcher::start(&cluster).members();
    let lease = cluster.start_heartbeat(&[], Duration::from_secs(15)).await.unwrap();
    let is_alive = |alive: bool| {
        let node = cluster.node().clone();
        move |members: &Option<Arc<Members>>| {
            members.as_ref().and_then(|all| all.get(&node)).is_some_and(|m| m.alive == alive)
        }
    };
    tokio::time::timeout(LONG, members.wait_for(is_alive(true))).await.unwrap().unwrap();
    cluster.store().revoke_lease(&lease).await.unwrap();
    tokio::time::timeout(LONG, members.wait_for(is_alive(false))).await.unwrap().unwrap();
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// A node that owns a whole group of blocks, with an endpoint in each, can be removed.
async fn removes_nodes_with_many_blocks(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    cluster.register(None).await.unwrap();
    let network = create(&cluster, "red", "10.1.0.0/16").await;
    let gone = NodeName::new("node-1").unwrap();
    let record = typed::encode(&cluster.own_record(&[])).unwrap();
    let key = keys::node(&gone);
    assert!(cluster.store().compare_and_set(&key, Expected::Absent, record).await.unwrap());
    let (index, pool) = network.pools().next().unwrap();
    for block in Block::all_of(index, pool).take(70) {
        change(&cluster, &network, block, 1).await;
    }
    let removed = cluster.remove_node(&gone).await.unwrap();
    assert_eq!((removed.blocks, removed.endpoints), (70, 70));
    let view = cluster.network_view(&network.id()).await.unwrap();
    assert!(view.blocks.is_empty() && view.endpoints.is_empty());
}

/// The mark of a drained node outlives its agent's registrations, and only a person clears it.
async fn drained_mark_outlives_registrations(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    let node = cluster.node().clone();
    assert!(matches!(
        cluster.set_drained(&node, true).await,
        Err(ClusterError::NoSuchNode { node: unknown, .. }) if unknown == node
    ));
    let before = cluster.register(None).await.unwrap();
    assert!(!before.drained);
    assert!(cluster.set_drained(&node, true).await.unwrap());
    assert!(!cluster.set_drained(&node, true).await.unwrap(), "it is no change");
    // Claims require the record as it was before.
    let marked = cluster.register(None).await.unwrap();
    assert!(marked.drained && marked.revision != before.revision);
    for vtep in ["198.18.0.1", "198.18.0.2"] {
        let vteps = [vtep.parse().unwrap()];
        cluster.start_heartbeat(&vteps, Duration::from_secs(15)).await.unwrap();
        let members = cluster.members().await.unwrap();
        assert_eq!(members[&node].record.vteps, vteps);
        assert!(members[&node].record.drained);
    }
    assert!(cluster.set_drained(&node, false).await.unwrap());
    assert!(!cluster.register(None).await.unwrap().drained);
}

/// A report of use is written by nodes of the cluster only, and goes with its node.
async fn reports_of_use_go_with_their_node(store: Arc<dyn Store>) {
    let cluster = cluster(store);
    let record = UsageRecord { counted: 7, networks: Usage::new() };
    assert!(!cluster.publish_usage(&record).await.unwrap());
    cluster.register(None).await.unwrap();
    assert!(cluster.publish_usage(&record).await.unwrap());
    assert_eq!(cluster.own_usage().await.unwrap(), Some(record.clone()));
    let all = cluster.usage_records().await.unwrap();
    assert_eq!(all.get(cluster.node()), Some(&record));
    let node = cluster.node().clone();
    cluster.remove_node(&node).await.unwrap();
    assert_eq!(cluster.own_usage().await.unwrap(), None);
}

/// A test of each function with Consul.
macro_rules! with_consul {
    ($($name:ident)*) => {
        mod consul {
            $(#[test] #[ignore = "needs Consul"] fn $name() {
                let server = super::server::Consul::start();
                super::run(super::$name(std::sync::Arc::new(server.store(stringify!($name)))));
            })*
        }
    };
}

/// A test of each function with the local store.
macro_rules! with_local_store {
    ($($name:ident)*) => {
        mod local {
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::run(super::$name(std::sync::Arc::new(super::LocalStore::new(dir.path()))));
            })*
        }
    };
}

with_consul! {
    follows_every_change
    changes_wake_only_their_network
    members_follow_heartbeats
    removes_nodes_with_many_blocks
    drained_mark_outlives_registrations
    reports_of_use_go_with_their_node
}

// A single node follows no blocks.
with_local_store! {
    members_follow_heartbeats
    removes_nodes_with_many_blocks
    drained_mark_outlives_registrations
    reports_of_use_go_with_their_node
}
