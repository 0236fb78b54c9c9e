use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use weft_model::{HostNumber, NodeName, PoolIndex};

use super::*;
use crate::ledger::tests::{Fixture, holder};
use crate::ledger::{Counts, Outcome, Want};
use crate::reservation::Loan;

const LATER: u64 = u64::MAX;

fn id(text: &str) -> PreparedId {
    PreparedId::new(text).unwrap()
}

fn prepared(text: &str, expires: u64) -> Holder {
    Holder::Prepared { id: id(text), expires }
}

fn prepare(fixture: &Fixture, text: &str, expires: u64) -> Reservation {
    match fixture.ledger().reserve(&prepared(text, expires), Want::Any, None).unwrap() {
        Outcome::Held(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

fn borrow(fixture: &Fixture, text: &str) -> Reservation {
    let loan =
        Loan { id: "00000000000000aa".parse().unwrap(), lender: NodeName::new("b").unwrap() };
    let place = (PoolIndex::new(0).unwrap(), HostNumber::new(77));
    let holder = prepared(text, LATER);
    fixture.ledger().borrow(&holder, place, &loan, None.into()).unwrap().unwrap()
}

/// The network's files.
fn files_of(fixture: &Fixture) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![fixture.path("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => drop(files.insert(path.clone(), fs::read(path).unwrap())),
            }
        }
    }
    files
}

/// Makes the network's files these, with an index that a change is under way in.
fn restore(fixture: &Fixture, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for path in files_of(fixture).into_keys() {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in files {
        let mut bytes = bytes.clone();
        if path.ends_with("index") {
            bytes[48] = 1;
        }
        fs::write(path, bytes).unwrap();
    }
}

/// The files as a kill leaves them after each step of settling, the first one before any.
fn kill_points(fixture: &Fixture, text: &str) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
    let before = files_of(fixture);
    assert!(matches!(
        fixture.ledger().settle(&id(text), &holder("c1"), None).unwrap(),
        Settled::Done(_)
    ));
    let after = files_of(fixture);
    let mut point = before.clone();
    let mut points = vec![before];
    let is_new = |path: &Path| path.ends_with("c1@eth0");
    let loans = |path: &Path| path.components().any(|part| part.as_os_str() == "loans");
    for step in [&is_new as &dyn Fn(&Path) -> bool, &loans] {
        point.extend(after.clone().into_iter().filter(|(path, _)| step(path)));
        points.push(point.clone());
    }
    point.retain(|path, _| after.contains_key(path));
    points.push(point);
    points
}

#[test]
fn settling_hands_the_address_over_once() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let reserved = prepare(&fixture, "p1", LATER);
    let Settled::Done(settled) = fixture.ledger().settle(&id("p1"), &holder("c1"), None).unwrap()
    else {
        panic!("it is there");
    };
    assert_eq!((settled.holder.clone(), settled.host), (holder("c1"), reserved.host));
    assert_eq!(fixture.ledger().prepared(&id("p1")).unwrap(), None);
    assert_eq!(fixture.ledger().counts().unwrap(), Counts { free: 15, reserved: 1 });
    let again = fixture.ledger().settle(&id("p1"), &holder("c1"), None).unwrap();
    assert_eq!(again, Settled::Done(settled.clone()));
    let other = fixture.ledger().settle(&id("p1"), &holder("c2"), None).unwrap();
    assert_eq!(other, Settled::Missing);
    prepare(&fixture, "p2", LATER);
    let other = fixture.ledger().settle(&id("p2"), &holder("c1"), None).unwrap();
    assert_eq!(other, Settled::Occupied(settled));
}

#[test]
fn a_kill_while_settling_leaves_the_address_with_one_holder() {
    for is_borrowed in [false, true] {
        let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
        let reserved =
            if is_borrowed { borrow(&fixture, "p1") } else { prepare(&fixture, "p1", LATER) };
        let held = u32::from(!is_borrowed);
        let counts = Counts { free: 16 - held, reserved: held };
        for (step, files) in kill_points(&fixture, "p1").iter().enumerate() {
            // Settled again, it is the attachment's.
            restore(&fixture, files);
            assert_eq!(fixture.ledger().counts().unwrap(), counts, "step {step}");
            let settled = fixture.ledger().settle(&id("p1"), &holder("c1"), None).unwrap();
            assert!(matches!(settled, Settled::Done(r) if r.host == reserved.host), "step {step}");
            assert_eq!(fixture.ledger().reservations().unwrap().len(), 1, "step {step}");
            assert_eq!(fixture.ledger().counts().unwrap(), counts, "step {step}");

            // Prepared again instead, an attachment that has the address keeps it.
            restore(&fixture, files);
            let has_attachment = fixture.ledger().reservation(&holder("c1")).unwrap().is_some();
            let again = prepare(&fixture, "p1", LATER);
            assert_eq!(again.host == reserved.host, !has_attachment, "step {step}");

            // Released instead, the same; and a loan is given back only if nothing holds it.
            restore(&fixture, files);
            fixture.ledger().release(&prepared("p1", LATER)).unwrap();
            let still = fixture.ledger().reservation(&holder("c1")).unwrap();
            let returned = fixture.ledger().returns().unwrap().len();
            assert_eq!(returned, usize::from(is_borrowed && still.is_none()), "step {step}");
            let reserved_now = if still.is_some() { counts.reserved } else { 0 };
            assert_eq!(fixture.ledger().counts().unwrap().reserved, reserved_now, "step {step}");
            if let Some(loan) = still.and_then(|still| still.loan) {
                let borrowed = fixture.ledger().borrowed(loan.id).unwrap().unwrap();
                assert_eq!(borrowed.holder, holder("c1"), "step {step}");
            }
        }
    }
}

#[test]
fn an_expired_lease_is_neither_settled_nor_renewed() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let reserved = prepare(&fixture, "p1", 1);
    let settled = fixture.ledger().settle(&id("p1"), &holder("c1"), None).unwrap();
    assert_eq!(settled, Settled::Expired(reserved.clone()));
    assert_eq!(fixture.ledger().renew_prepared(&id("p1"), LATER).unwrap(), None);
    assert_eq!(fixture.ledger().expired().unwrap(), [reserved]);
    assert_eq!(fixture.ledger().renew_prepared(&id("p2"), LATER).unwrap(), None);
}

#[test]
fn a_renewed_lease_is_not_freed_for_the_old_one() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let old = prepare(&fixture, "p1", LATER - 1);
    let renewed = fixture.ledger().renew_prepared(&id("p1"), LATER).unwrap().unwrap();
    assert_eq!((renewed.host, renewed.holder), (old.host, prepared("p1", LATER)));
    assert!(!fixture.ledger().release_exactly(&old).unwrap());
    assert!(fixture.ledger().expired().unwrap().is_empty());
    let again = prepare(&fixture, "p1", LATER - 2);
    assert_eq!((again.host, again.holder), (old.host, prepared("p1", LATER - 2)));
}

#[test]
fn a_network_with_a_prepared_address_is_not_retired_before_the_lease_ends() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let tombstone = fixture.dir.path().join("tombstone");
    prepare(&fixture, "p1", LATER);
    assert!(!fixture.ledger().retire(&tombstone).unwrap());
    prepare(&fixture, "p1", 1);
    assert!(fixture.ledger().retire(&tombstone).unwrap());
}

#[test]
fn a_block_that_is_lost_takes_its_prepared_addresses_along() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    prepare(&fixture, "p1", LATER);
    fixture.ledger().lose_block(&"0-16-4".parse().unwrap()).unwrap();
    assert!(fixture.ledger().stranded().unwrap().is_empty());
    let settled = fixture.ledger().settle(&id("p1"), &holder("c1"), None).unwrap();
    assert_eq!(settled, Settled::Missing);
}
