use std::collections::HashSet;
use std::fs;

use tempfile::TempDir;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{ContainerId, IfName, NetworkName, NetworkSpec, Vni};

use super::*;

fn network(subnet: &str) -> Network {
    let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("ovnet1").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

pub(super) fn holder(id: &str) -> Holder {
    Holder::Attachment {
        container_id: ContainerId::new(id).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

pub(super) struct Fixture {
    pub(super) dir: TempDir,
    pub(super) network: Network,
}

impl Fixture {
    pub(super) fn new(subnet: &str, blocks: &[&str]) -> Self {
        let fixture = Self { dir: TempDir::new().unwrap(), network: network(subnet) };
        for block in blocks {
            fixture.ledger().add_block(&block.parse().unwrap()).unwrap();
        }
        fixture
    }

    /// Opened again each time, as each plugin process does.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::open(self.dir.path(), self.network.clone()).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("networks/ovnet1").join(name)
    }

    pub(super) fn reserve(&self, id: &str) -> Option<String> {
        match self.ledger().reserve(&holder(id), Want::Any, None).unwrap() {
            Outcome::Held(reservation) => Some(reservation.addresses[0].to_string()),
            Outcome::NoRoom => None,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn exactly(&self, id: &str, host: u64) -> Outcome {
        let want = Want::Exactly(PoolIndex::new(0).unwrap(), HostNumber::new(host));
        self.ledger().reserve(&holder(id), want, None).unwrap()
    }
}

#[test]
fn hands_out_every_address_of_a_block_once() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    let got: Vec<String> = (0..14).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert_eq!(got[0], "10.9.0.2", "network and gateway are left out");
    assert_eq!(got.iter().collect::<HashSet<_>>().len(), 14);
    assert_eq!(fixture.reserve("one-more"), None);
    assert_eq!(fixture.ledger().counts().unwrap(), Counts { free: 0, reserved: 14 });
}

#[test]
fn the_same_attachment_gets_the_same_address() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    assert_eq!(fixture.reserve("c1"), fixture.reserve("c1"));
    assert_ne!(fixture.reserve("c1"), fixture.reserve("c2"));
}

#[test]
fn freed_addresses_are_reused_last_and_longest_free_first() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let first = fixture.reserve("a").unwrap();
    let second = fixture.reserve("b").unwrap();
    fixture.ledger().release(&holder("b")).unwrap();
    fixture.ledger().release(&holder("a")).unwrap();
    let rest: Vec<String> = (0..14).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert!(!rest.contains(&first) && !rest.contains(&second));
    assert_eq!(fixture.reserve("x"), Some(second));
    assert_eq!(fixture.reserve("y"), Some(first));
}

#[test]
fn a_new_block_is_used_before_freed_addresses() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    fixture.reserve("a").unwrap();
    fixture.ledger().release(&holder("a")).unwrap();
    fixture.ledger().add_block(&"0-32-4".parse().unwrap()).unwrap();
    assert_eq!(fixture.reserve("b").unwrap(), "10.9.0.32");
}

#[test]
fn releasing_twice_or_what_was_never_held_is_no_error() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let address = fixture.reserve("a").unwrap();
    let released = fixture.ledger().release(&holder("a")).unwrap().unwrap();
    assert_eq!(released.addresses[0].to_string(), address);
    assert_eq!(fixture.ledger().release(&holder("a")).unwrap(), None);
    assert_eq!(fixture.ledger().counts().unwrap(), Counts { free: 16, reserved: 0 });
}

#[test]
fn a_wanted_address_is_given_or_the_reason_is() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    assert!(matches!(fixture.exactly("a", 5), Outcome::Held(r) if r.host.get() == 5));
    assert_eq!(fixture.exactly("b", 5), Outcome::Taken(holder("a")));
    assert_eq!(fixture.exactly("b", 1), Outcome::Withheld);
    assert_eq!(fixture.exactly("b", 0), Outcome::Withheld);
    assert_eq!(fixture.exactly("b", 20), Outcome::NotOwned("0-16-4".parse().unwrap()));
    assert_eq!(fixture.exactly("b", 255), Outcome::Withheld);
}

#[test]
fn a_block_leaves_only_when_idle_and_its_slots_are_used_again() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4", "0-32-4"]);
    fixture.exactly("a", 40);
    let block = "0-32-4".parse().unwrap();
    assert!(!fixture.ledger().remove_idle_block(&block).unwrap());
    fixture.ledger().release(&holder("a")).unwrap();
    assert!(fixture.ledger().remove_idle_block(&block).unwrap());
    assert!(!fixture.ledger().remove_idle_block(&block).unwrap());
    assert_eq!(fixture.ledger().counts().unwrap().free, 16);
    let size = || fs::metadata(fixture.path("index")).unwrap().len();
    let before = size();
    fixture.ledger().add_block(&"0-48-4".parse().unwrap()).unwrap();
    assert_eq!(size(), before);
    assert_eq!(fixture.ledger().counts().unwrap().free, 32);
    assert_eq!(fixture.reserve("b").unwrap(), "10.9.0.48");
}

#[test]
fn a_lost_or_damaged_index_is_made_again() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4", "0-32-4"]);
    let held = fixture.reserve("a").unwrap();
    let freed = fixture.reserve("b").unwrap();
    fixture.ledger().release(&holder("b")).unwrap();
    let index = fs::read(fixture.path("index")).unwrap();
    let mut dirty = index.clone();
    dirty[48] = 1;
    for damage in [&b""[..], b"weft", &index[..100], &[0xff; 4096], &dirty] {
        fs::write(fixture.path("index"), damage).unwrap();
        let counts = fixture.ledger().counts().unwrap();
        assert_eq!(counts, Counts { free: 31, reserved: 1 });
    }
    fs::remove_file(fixture.path("index")).unwrap();
    assert_eq!(fixture.ledger().counts().unwrap(), Counts { free: 31, reserved: 1 });
    assert_eq!(fixture.reserve("a"), Some(held));
    fs::write(fixture.path("index"), &dirty).unwrap();
    let all: Vec<String> = (0..31).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert_eq!(all.last(), Some(&freed), "a dirty index still tells what was freed last");
}

#[test]
fn a_damaged_reservation_costs_itself_and_nothing_else() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let lost = fixture.reserve("a").unwrap();
    let kept = fixture.reserve("b").unwrap();
    fs::write(fixture.path("reservations/a@eth0"), "{\"holder\":").unwrap();
    let all: Vec<String> = (0..14).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert!(!all.contains(&lost), "the container may still be there");
    assert_eq!(fixture.ledger().reservations().unwrap().len(), 15);
    fixture.ledger().release(&holder("a")).unwrap();
    assert_eq!(fixture.reserve("d"), Some(lost));
    assert_eq!(fixture.reserve("b"), Some(kept));
}

#[test]
fn a_damaged_reservation_without_an_index_keeps_the_address_that_it_still_names() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let lost = fixture.reserve("a").unwrap();
    let file = fixture.path("reservations/a@eth0");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 12]).unwrap();
    fs::remove_file(fixture.path("index")).unwrap();
    let all: Vec<String> = (0..15).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert!(!all.contains(&lost));
    assert_eq!(fixture.reserve("one-more"), None);
    assert!(fixture.ledger().release_damaged(&holder("a")).unwrap());
    assert!(!fixture.ledger().release_damaged(&holder("c1")).unwrap(), "it can be read");
    assert_eq!(fixture.reserve("d"), Some(lost));
}

#[test]
fn hands_out_no_address_while_a_damaged_reservation_has_an_unknown_one() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4", "0-32-4"]);
    let kept = fixture.reserve("a").unwrap();
    let lost = fixture.reserve("b").unwrap();
    let file = fixture.path("reservations/b@eth0");
    fs::write(&file, "").unwrap();
    fs::remove_file(fixture.path("index")).unwrap();

    for want in [Want::Any, Want::Exactly(PoolIndex::new(0).unwrap(), HostNumber::new(30))] {
        let error = fixture.ledger().reserve(&holder("c"), want, None).unwrap_err().to_string();
        assert!(error.contains("b@eth0 is damaged (its address is unknown"), "{error}");
    }
    assert!(!fixture.ledger().remove_idle_block(&"0-32-4".parse().unwrap()).unwrap());
    assert_eq!(fixture.reserve("a"), Some(kept.clone()), "has one already");
    assert!(fixture.ledger().release(&holder("a")).unwrap().is_some(), "DEL works");

    fixture.ledger().release(&holder("b")).unwrap();
    assert!(!file.exists());
    let all: Vec<String> = (0..32).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert!(all.contains(&lost) && all.contains(&kept));
    assert!(!fixture.ledger().remove_idle_block(&"0-32-4".parse().unwrap()).unwrap());
}

#[test]
fn a_damaged_reservation_that_is_put_right_has_its_address_again() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let held = fixture.reserve("a").unwrap();
    let file = fixture.path("reservations/a@eth0");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, "").unwrap();
    fs::remove_file(fixture.path("index")).unwrap();
    fixture.ledger().reserve(&holder("b"), Want::Any, None).unwrap_err();
    fs::write(&file, whole).unwrap();
    let all: Vec<String> = (0..15).map(|i| fixture.reserve(&format!("c{i}")).unwrap()).collect();
    assert!(!all.contains(&held));
    assert_eq!(fixture.reserve("d"), None);
}

#[test]
fn a_change_of_the_definition_is_honoured() {
    let mut fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    let mut record = fixture.network.record().clone();
    let mut pool = record.pools[0].record().clone();
    pool.exclude = vec!["10.9.0.16/29".parse().unwrap()];
    record.pools[0] = pool.try_into().unwrap();
    fixture.network = Network::new(record).unwrap();
    assert_eq!(fixture.reserve("a").unwrap(), "10.9.0.24");
}

#[test]
fn forgets_and_returns_a_reservation_without_the_definition() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-16-4"]);
    fixture.reserve("a").unwrap();
    let held = fixture.ledger().reservation(&holder("a")).unwrap();
    let name = fixture.network.name().clone();
    let freed = forget(fixture.dir.path(), &name, &holder("a")).unwrap();
    assert_eq!(freed, held);
    assert_eq!(fixture.ledger().counts().unwrap(), Counts { free: 16, reserved: 0 });
    forget(fixture.dir.path(), &NetworkName::new("never-seen").unwrap(), &holder("a")).unwrap();
    assert!(!fixture.dir.path().join("networks/never-seen").exists());
}

#[test]
fn parallel_processes_never_share_an_address() {
    let fixture = Fixture::new("10.9.0.0/16", &["0-64-6", "0-128-6"]);
    let got: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|t| {
                let fixture = &fixture;
                scope.spawn(move || {
                    let mut got = vec![];
                    for i in 0..40 {
                        let id = format!("c{t}-{i}");
                        let Some(address) = fixture.reserve(&id) else { continue };
                        if i % 3 == 0 {
                            fixture.ledger().release(&holder(&id)).unwrap();
                        } else {
                            got.push(address);
                        }
                    }
                    got
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(got.iter().collect::<HashSet<_>>().len(), got.len());
    let counts = fixture.ledger().counts().unwrap();
    assert_eq!(counts.reserved as usize, got.len());
    assert_eq!(counts.free + counts.reserved, 128);
}

#[test]
fn a_ledger_is_retired_only_while_no_container_holds_an_address() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    let tombstone = fixture.dir.path().join("tombstone");
    fixture.ledger().reserve(&Holder::Node, Want::Any, None).unwrap();
    fixture.reserve("a").unwrap();
    assert!(!fixture.ledger().retire(&tombstone).unwrap());
    fixture.ledger().release(&holder("a")).unwrap();
    assert!(fixture.ledger().retire(&tombstone).unwrap());
    assert!(!fixture.path("").exists());
    assert!(tombstone.join("reservations/@node").exists());
}

#[test]
fn refuses_a_process_that_waits_while_the_ledger_is_retired() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    let (waiting, tombstone) = (fixture.ledger(), fixture.dir.path().join("tombstone"));
    let lock = std::fs::File::open(fixture.path("lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let reserving = scope.spawn(|| waiting.reserve(&holder("a"), Want::Any, None));
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::rename(fixture.path(""), &tombstone).unwrap();
        // Also where somebody has made the directory again.
        fixture.ledger().counts().unwrap();
        drop(lock);
        let error = reserving.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("removed from this node"), "{error}");
    });
}

fn sticky(identity: &str) -> Sticky {
    Sticky { identity: identity.into(), keep: 3600 }
}

#[test]
fn keeps_an_address_for_its_identity_alone() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    let identity = sticky("db-0");
    let about = About { sandbox: None, sticky: Some(&identity) };
    let reserve = |id: &str| match fixture.ledger().reserve(&holder(id), Want::Any, about).unwrap()
    {
        Outcome::Held(reservation) => reservation.addresses,
        other => panic!("{other:?}"),
    };
    let first = reserve("one");
    fixture.ledger().release(&holder("one")).unwrap();
    for i in 0..13 {
        assert_ne!(fixture.reserve(&format!("c{i}")), Some(first[0].to_string()));
    }
    assert_eq!(reserve("two"), first);
}

#[test]
fn an_address_that_two_files_name_is_freed_by_its_holder_only() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    let identity = sticky("db-0");
    let about = About { sandbox: None, sticky: Some(&identity) };
    fixture.ledger().reserve(&holder("one"), Want::Any, about).unwrap();
    let file = fixture.path("reservations/one@eth0");
    let before = fs::read(&file).unwrap();
    fixture.ledger().release(&holder("one")).unwrap();
    // As a call leaves it that is killed between the two steps of handing over.
    fs::write(&file, before).unwrap();
    fs::remove_file(fixture.path("index")).unwrap();
    let kept = fixture.ledger().kept(&identity).unwrap().unwrap();
    fixture.ledger().release(&kept.holder).unwrap();
    let held = fixture.ledger().reservation(&holder("one")).unwrap().unwrap();
    for i in 0..13 {
        assert_ne!(fixture.reserve(&format!("c{i}")), Some(held.addresses[0].to_string()));
    }
}

#[test]
fn does_not_free_a_newer_reservation_of_the_same_holder() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4"]);
    fixture.reserve("one");
    let old = fixture.ledger().reservation(&holder("one")).unwrap().unwrap();
    fixture.ledger().release(&holder("one")).unwrap();
    fixture.reserve("other");
    fixture.reserve("one");
    assert!(!fixture.ledger().release_exactly(&old).unwrap());
    assert!(fixture.ledger().reservation(&holder("one")).unwrap().is_some());
}

#[test]
fn a_lost_block_strands_its_reservations_until_it_comes_back() {
    let fixture = Fixture::new("10.9.0.0/24", &["0-0-4", "0-16-4"]);
    fixture.reserve("one");
    let block = "0-0-4".parse().unwrap();
    assert!(fixture.ledger().stranded().unwrap().is_empty());
    let first = fixture.ledger().reservation(&holder("one")).unwrap().unwrap();
    let lost = if first.host.get() < 16 { block } else { "0-16-4".parse().unwrap() };
    fixture.ledger().lose_block(&lost).unwrap();
    assert_eq!(fixture.ledger().stranded().unwrap(), [first]);
    let again = fixture.ledger().reserve(&holder("one"), Want::Any, None).unwrap();
    assert!(matches!(again, Outcome::Stranded(_)), "{again:?}");
    fixture.ledger().add_used_block(&lost, &[], &[]).unwrap();
    assert!(fixture.ledger().stranded().unwrap().is_empty());
    let again = fixture.ledger().reserve(&holder("one"), Want::Any, None).unwrap();
    assert!(matches!(again, Outcome::Held(_)), "{again:?}");
}
