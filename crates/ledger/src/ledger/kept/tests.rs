use std::fs;
use std::net::IpAddr;

use weft_model::{HostNumber, LoanId, NodeName, PoolIndex};

use super::*;
use crate::ledger::tests::{Fixture, holder};
use crate::ledger::{About, Outcome};

fn sticky(identity: &str) -> Sticky {
    Sticky { identity: identity.into(), keep: 3600 }
}

/// A ledger that keeps an address for `prod`, under the id of `evil` too: as if both had one id.
struct Collision {
    fixture: Fixture,
    prod: Sticky,
    evil: Sticky,
    kept: Vec<IpAddr>,
}

impl Collision {
    fn plant() -> Self {
        let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
        let (prod, evil) = (sticky("prod/db-0"), sticky("evil/x"));
        let kept = held(&fixture, "db", Want::Any, &prod);
        fixture.ledger().release(&holder("db")).unwrap();
        let file = |sticky: &Sticky| fixture.path("reservations").join(kept_file_name(sticky.id()));
        fs::copy(file(&prod), file(&evil)).unwrap();
        Self { fixture, prod, evil, kept }
    }

    fn ledger(&self) -> Ledger {
        self.fixture.ledger()
    }

    fn place(&self) -> Want {
        let (pool, host) = self.fixture.network.locate(self.kept[0]).unwrap();
        Want::Exactly(pool, host)
    }
}

fn held(fixture: &Fixture, id: &str, want: Want, sticky: &Sticky) -> Vec<IpAddr> {
    let about = About { sandbox: None, sticky: Some(sticky) };
    match fixture.ledger().reserve(&holder(id), want, about).unwrap() {
        Outcome::Held(reservation) => reservation.addresses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_is_kept_from_an_identity_with_the_same_id() {
    let planted = Collision::plant();
    assert_eq!(planted.ledger().kept(&planted.evil).unwrap(), None);
    assert!(!planted.ledger().keeps_for(&planted.evil).unwrap());
    assert_ne!(held(&planted.fixture, "x", Want::Any, &planted.evil), planted.kept);
    let about = About { sandbox: None, sticky: Some(&planted.evil) };
    let asked = planted.ledger().reserve(&holder("y"), planted.place(), about).unwrap();
    assert!(
        matches!(&asked, Outcome::Taken(other) if other.is_kept_for(&planted.prod)),
        "{asked:?}"
    );
    assert_eq!(held(&planted.fixture, "db2", Want::Any, &planted.prod), planted.kept);
}

#[test]
fn lends_no_kept_address_for_an_identity_with_the_same_id() {
    let planted = Collision::plant();
    let (node, loan) = (NodeName::new("b").unwrap(), LoanId::new(1));
    let lent = planted.ledger().lend(planted.place(), &node, loan, Some(&planted.evil)).unwrap();
    assert!(matches!(&lent, Outcome::Taken(_)), "{lent:?}");
    match planted.ledger().lend(Want::Any, &node, loan, Some(&planted.evil)).unwrap() {
        Outcome::Held(other) => assert_ne!(other.addresses, planted.kept),
        other => panic!("{other:?}"),
    }
    let (loan, prod) = (LoanId::new(2), Some(&planted.prod));
    match planted.ledger().lend(Want::Any, &node, loan, prod).unwrap() {
        Outcome::Held(own) => assert_eq!(own.addresses, planted.kept),
        other => panic!("{other:?}"),
    }
}

#[test]
fn leaves_what_is_kept_for_an_identity_with_the_same_id() {
    let planted = Collision::plant();
    let file = planted.fixture.path("reservations").join(kept_file_name(planted.evil.id()));
    let before = fs::read(&file).unwrap();
    let freed = held(&planted.fixture, "x", Want::Any, &planted.evil);
    planted.ledger().release(&holder("x")).unwrap();
    assert_eq!(fs::read(&file).unwrap(), before);
    let (pool, host) = planted.fixture.network.locate(freed[0]).unwrap();
    let free = Want::Exactly(pool, host);
    assert_eq!(held(&planted.fixture, "y", free, &sticky("third")), freed);
}

#[test]
fn a_block_that_comes_keeps_nothing_under_an_id_that_is_taken() {
    let planted = Collision::plant();
    let block = "0-16-4".parse().unwrap();
    let late = [(HostNumber::new(20), planted.evil.clone())];
    planted.ledger().add_used_block(&block, &[], &late).unwrap();
    let want = Want::Exactly(PoolIndex::new(0).unwrap(), HostNumber::new(20));
    assert_eq!(held(&planted.fixture, "z", want, &sticky("third"))[0].to_string(), "10.9.0.20");
}
