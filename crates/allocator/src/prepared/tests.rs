use tempfile::TempDir;
use weft_ledger::layout::NetworkDir;
use weft_ledger::ledger::{Outcome, Want};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{ContainerId, IfName, NetworkSpec, Vni};

use weft_cluster::{Cluster, ClusterError};

use super::*;
use crate::address::{AddressRequest, acquire};
use crate::liveness::{Evidence, Life, Living};
use crate::release::free_expired;

const LATER: u64 = u64::MAX;

/// A node that owns a block of network `red`.
struct Node {
    dir: TempDir,
    network: Network,
}

impl Node {
    fn new() -> Self {
        let ipv4 = FamilyRecord::new("10.9.0.0/24".parse().unwrap());
        let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
        let network = NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&"red".parse().unwrap(), Vni::FIRST_AUTOMATIC)
            .unwrap();
        let node = Self { dir: TempDir::new().unwrap(), network };
        networks::cache(node.dir.path(), &node.network).unwrap();
        node.ledger().add_block(&"0-16-4".parse().unwrap()).unwrap();
        node
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.dir.path(), self.network.clone()).unwrap()
    }

    fn prepare(&self, id: &PreparedId, expires: u64) -> AddressGrant {
        let request = AddressRequest {
            network: self.network.name().clone(),
            spec: NetworkSpec::default(),
            holder: holder(id, expires),
            wanted: vec![],
            sandbox: None,
            sticky: None,
        };
        let no_store = || -> Result<Cluster, ClusterError> { panic!("the node's files suffice") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let prepared = acquire(self.dir.path(), no_store, &request, &|| true);
        runtime.block_on(prepared).unwrap()
    }

    fn attachment(&self, id: &str) -> Attachment {
        Attachment {
            network: self.network.name().clone(),
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        }
    }
}

fn id(text: &str) -> PreparedId {
    PreparedId::new(text).unwrap()
}

#[test]
fn a_prepared_address_goes_to_the_attachment_with_its_sandbox() {
    let node = Node::new();
    let prepared = node.prepare(&id("p1"), LATER - 1);
    assert_eq!(prepared.addresses()[0].address.to_string(), "10.9.0.16/24");
    assert_eq!(prepared.mac().unwrap().to_string(), "02:42:0a:09:00:10");
    assert_eq!(node.prepare(&id("p1"), LATER - 1), prepared, "asked again, it is the same");
    let renewed = renew(node.dir.path(), node.network.name(), &id("p1"), LATER).unwrap();
    assert_eq!(renewed.addresses(), prepared.addresses());
    let sandbox = Sandbox::observe(Path::new("/proc/self/ns/net"));
    let settle = || settle(node.dir.path(), &id("p1"), &node.attachment("c1"), Some(&sandbox));
    let settled = settle().unwrap();
    assert_eq!(settled.addresses(), prepared.addresses());
    assert_eq!(settled.reservation().sandbox.as_ref(), Some(&sandbox));
    assert_eq!(settle().unwrap(), settled);
    // The attachment has it now.
    assert!(!release(node.dir.path(), node.network.name(), &id("p1")).unwrap());
    assert_eq!(node.ledger().reservations().unwrap().len(), 1);
}

#[test]
fn settling_after_the_lease_is_refused_and_says_what_to_do() {
    let node = Node::new();
    node.prepare(&id("p1"), 1);
    let settle = || settle(node.dir.path(), &id("p1"), &node.attachment("c1"), None);
    let error = settle().unwrap_err().to_string();
    assert!(error.contains("10.9.0.16") && error.contains("reserve one again"), "{error}");
    let freed = free_expired(&node.ledger()).unwrap();
    assert_eq!(freed.len(), 1);
    let error = settle().unwrap_err();
    assert!(matches!(error, AllocatorError::NotPrepared { .. }), "{error}");
    assert_eq!(node.ledger().counts().unwrap().reserved, 0);
}

#[test]
fn an_attachment_with_another_address_cannot_have_a_prepared_one() {
    let node = Node::new();
    let attachment = node.attachment("c1");
    let held = node.ledger().reserve(&Holder::from(&attachment), Want::Any, None).unwrap();
    assert!(matches!(held, Outcome::Held(_)));
    node.prepare(&id("p1"), LATER);
    let error = settle(node.dir.path(), &id("p1"), &attachment, None).unwrap_err().to_string();
    assert!(error.contains("already holds 10.9.0.16"), "{error}");
}

#[test]
fn a_lease_that_runs_is_neither_expired_nor_a_container_that_is_gone() {
    let node = Node::new();
    node.prepare(&id("p1"), LATER);
    assert!(free_expired(&node.ledger()).unwrap().is_empty());
    for reservation in node.ledger().reservations().unwrap() {
        // GC and the sweep judge attachments; this is none, and nothing tells of its container.
        assert_eq!(reservation.holder.attachment(node.network.name()), None);
        let evidence = Evidence { sandbox: reservation.sandbox.as_ref(), ..Evidence::default() };
        assert_eq!(Living::observe(std::iter::empty()).judge(&evidence), Life::Unknown);
    }
    assert!(release(node.dir.path(), node.network.name(), &id("p1")).unwrap());
    assert!(!release(node.dir.path(), node.network.name(), &id("p1")).unwrap());
}

#[test]
fn nothing_is_prepared_in_a_network_that_the_node_does_not_know() {
    let node = Node::new();
    let other: NetworkName = "other".parse().unwrap();
    assert!(renew(node.dir.path(), &other, &id("p1"), LATER).is_err());
    assert!(!release(node.dir.path(), &other, &id("p1")).unwrap());
    assert!(!NetworkDir::new(node.dir.path(), &other).root().exists());
}
