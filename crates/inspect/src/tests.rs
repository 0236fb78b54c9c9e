use serde_json::json;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Endpoint, HostNumber, NetworkSpec, PoolIndex, Vni};
use weft_store::Revision;

use crate::difference::*;
use crate::records::*;
use std::net::IpAddr;
use weft_cluster::view::NetworkRequests;
use weft_cluster::{NetworkView, Stored};
use weft_files::Inode;
use weft_ledger::ledger::{Away, Counts};
use weft_ledger::{Holder, Reservation, Sandbox};
use weft_model::{Block, ContainerId, IfName, LoanId, Network, NetworkName, NodeName};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn attachment(id: &str) -> Holder {
    Holder::Attachment {
        container_id: ContainerId::new(id).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

fn network() -> Network {
    let ipv4 = FamilyRecord::new("10.9.0.0/24".parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("red").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

/// As a file has it: what else there can be in one is left out.
fn reservation(holder: &serde_json::Value, host: u64) -> Reservation {
    let (pool, number) = (PoolIndex::new(0).unwrap(), HostNumber::new(host));
    let addresses: Vec<IpAddr> = network().addresses(pool, number).unwrap().iter().collect();
    serde_json::from_value(json!({
        "holder": holder, "pool": 0, "host": host, "addresses": addresses, "created": 0
    }))
    .unwrap()
}

fn held(id: &str, host: u64) -> Reservation {
    reservation(&json!({"attachment": {"containerId": id, "ifname": "eth0"}}), host)
}

/// A node that has one block, holds two of its addresses itself, and has lent one.
fn agreeing() -> Records {
    let lent = json!({"lent": {"pool": 0, "host": 9, "node": "b", "loan": "0000000000000001"}});
    let reservations = vec![reservation(&json!("node"), 2), held("c1", 3), reservation(&lent, 9)];
    let mut view = NetworkView::default();
    view.blocks.insert("0-0-4".parse().unwrap(), node("a"));
    view.blocks.insert("0-16-4".parse().unwrap(), node("b"));
    let endpoint = endpoint("b", 1);
    view.endpoints.insert(
        "10.9.0.9".parse().unwrap(),
        Stored { record: endpoint, revision: Revision::new(1) },
    );
    Records {
        node: node("a"),
        network: network(),
        blocks: vec![("0-0-4".parse().unwrap(), Counts { free: 11, reserved: 3 })],
        files: Files { reservations, damaged: vec![] },
        stranded: vec![],
        returns: vec![],
        damage: vec![],
        view,
        requests: NetworkRequests::new(),
    }
}

fn endpoint(at: &str, loan: u64) -> Endpoint {
    Endpoint {
        node: node(at),
        mac: "02:42:0a:09:00:09".parse().unwrap(),
        lender: None,
        loan: Some(LoanId::new(loan)),
    }
}

/// Kinds, addresses and fixes of what is found.
fn found(records: &Records) -> Vec<(Kind, String, Fix)> {
    let all = records.compare();
    all.into_iter()
        .map(|d| (d.kind, d.addresses.first().map_or_else(String::new, ToString::to_string), d.fix))
        .collect()
}

#[test]
fn finds_no_difference_in_records_that_agree() {
    assert_eq!(agreeing().compare(), []);
}

#[test]
fn enters_block_that_only_the_store_gives_to_this_node() {
    let mut records = agreeing();
    let block = "0-32-4".parse().unwrap();
    records.view.blocks.insert(block, node("a"));
    // Its reservations seem stranded as long as it is missing.
    records.files.reservations.push(held("c2", 40));
    records.stranded = vec![held("c2", 40)];
    assert_eq!(found(&records), [(Kind::BlockNotEntered, String::new(), Fix::Adopt(block))]);
}

#[test]
fn block_without_reservations_that_is_not_entered_yet_is_a_note() {
    let mut records = agreeing();
    records.view.blocks.insert("0-32-4".parse().unwrap(), node("a"));
    assert!(records.compare()[0].is_note, "so it is after a reboot");
    records.files.reservations.push(held("c2", 40));
    assert!(!records.compare()[0].is_note);
}

#[test]
fn sets_nothing_aside_that_a_damaged_reservation_may_hold() {
    let mut records = agreeing();
    let endpoint = Stored { record: endpoint("b", 5), revision: Revision::new(5) };
    records.view.endpoints.insert("10.9.0.5".parse().unwrap(), endpoint);
    records.files.damaged.push(Damaged::of("/reservations/c2@eth0".into(), b""));
    assert_eq!(records.compare(), []);
}

#[test]
fn reports_block_unowned_or_owned_by_another_node() {
    let mut records = agreeing();
    records.view.endpoints.clear();
    records.files.reservations.pop();
    records.blocks[0].1.reserved = 2;
    let block: Block = "0-0-4".parse().unwrap();
    records.view.blocks.remove(&block);
    assert_eq!(found(&records), [(Kind::BlockNotOwned, String::new(), Fix::Verify)]);
    assert!(records.compare()[0].what.contains("is unowned in the store"));
    records.view.blocks.insert(block, node("b"));
    assert!(records.compare()[0].what.contains("node b's"));
}

#[test]
fn reports_address_stranded_if_its_block_went_away() {
    let mut records = agreeing();
    let stranded = held("c2", 20);
    records.files.reservations.push(stranded.clone());
    records.stranded.push(stranded);
    assert_eq!(found(&records), [(Kind::Stranded, "10.9.0.20".into(), Fix::None)]);
    assert!(records.compare()[0].what.contains("belongs to node b"));
}

#[test]
fn reports_loans_that_only_one_side_knows() {
    let back = |records: &mut Records, at: &str| {
        let endpoint = Stored { record: endpoint(at, 7), revision: Revision::new(7) };
        records.view.endpoints.insert("10.9.0.20".parse().unwrap(), endpoint);
    };
    let mut borrowed = held("c2", 20);
    borrowed.loan = Some(weft_ledger::reservation::Loan { id: LoanId::new(7), lender: node("b") });

    let mut unknown = agreeing();
    unknown.files.reservations.push(borrowed.clone());
    assert_eq!(found(&unknown), [(Kind::LoanUnknown, "10.9.0.20".into(), Fix::None)]);
    back(&mut unknown, "a");
    assert_eq!(unknown.compare(), []);

    let mut unused = agreeing();
    back(&mut unused, "a");
    assert_eq!(found(&unused), [(Kind::EndpointUnused, "10.9.0.20".into(), Fix::Tidy)]);

    let mut lent_without_borrower = agreeing();
    lent_without_borrower.view.endpoints.clear();
    assert_eq!(
        found(&lent_without_borrower),
        [(Kind::LentWithoutBorrower, "10.9.0.9".into(), Fix::Reclaim)]
    );
}

#[test]
fn sets_lent_address_aside_unless_a_container_has_it() {
    let mut records = agreeing();
    let endpoint = Stored { record: endpoint("b", 5), revision: Revision::new(5) };
    records.view.endpoints.insert("10.9.0.5".parse().unwrap(), endpoint);
    let away = Away { host: HostNumber::new(5), node: node("b"), loan: Some(LoanId::new(5)) };
    let fix = Fix::SetAside("0-0-4".parse().unwrap(), away);
    assert_eq!(found(&records), [(Kind::NotSetAside, "10.9.0.5".into(), fix)]);
    records.files.reservations.push(held("c2", 5));
    records.blocks[0].1.reserved = 4;
    assert_eq!(found(&records), [(Kind::NotSetAside, "10.9.0.5".into(), Fix::None)]);
}

#[test]
fn names_both_holders_of_one_address() {
    let mut records = agreeing();
    records.files.reservations.push(held("c2", 3));
    assert_eq!(found(&records), [(Kind::HeldTwice, "10.9.0.3".into(), Fix::None)]);
    let what = &records.compare()[0].what;
    assert!(what.contains("c1/eth0") && what.contains("c2/eth0"), "{what}");
}

#[test]
fn compares_index_with_reservations_as_far_as_they_can_be_read() {
    let mut records = agreeing();
    records.blocks[0].1.reserved = 4;
    assert_eq!(found(&records), [(Kind::Index, String::new(), Fix::Reindex)]);
    let damaged = Damaged::of("/reservations/c2@eth0".into(), b"");
    records.files.damaged.push(damaged);
    assert_eq!(records.compare(), []);
    // A new index would not know of the damaged one's address.
    records.blocks[0].1.reserved = 5;
    assert_eq!(found(&records), [(Kind::Index, String::new(), Fix::None)]);
    records.blocks[0].1.reserved = 2;
    assert_eq!(found(&records), [(Kind::Index, String::new(), Fix::None)]);
}

#[test]
fn compares_nothing_with_damaged_ledger() {
    let mut records = agreeing();
    records.blocks.clear();
    records.damage = vec!["blocks/0-0-4 is damaged".into()];
    assert_eq!(found(&records), [(Kind::DamagedFile, String::new(), Fix::None)]);
}

#[test]
fn reads_intact_fields_of_damaged_reservation() {
    let mut whole = held("c1", 3);
    whole.sandbox =
        Some(Sandbox { netns: "/run/netns/c1".into(), identity: Some(Inode::new(4, 99)) });
    let text = serde_json::to_vec(&whole).unwrap();
    let of = |length: usize| Damaged::of("/reservations/c1@eth0".into(), &text[..length]);
    let damaged = of(text.len() - 1);
    assert_eq!(damaged.holder, Some(attachment("c1")));
    assert_eq!((&damaged.addresses, &damaged.sandbox), (&whole.addresses, &whole.sandbox));
    // A number that was cut off is another number.
    let cut = text.windows(4).position(|w| w == b",99]").unwrap();
    assert_eq!(of(cut + 2).sandbox, None);
    assert_eq!(of(0).sandbox, None);
    assert!(of(0).addresses.is_empty());
}
