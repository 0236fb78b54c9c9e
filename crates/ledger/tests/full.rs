//! Addresses are freed on a file system that is full: a tmpfs in a mount namespace of the test's
//! thread.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use weft_ledger::ledger::{Outcome, Want};
use weft_ledger::reservation::Loan;
use weft_ledger::{FileError, Holder, Ledger};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{
    ContainerId, HostNumber, IfName, LoanId, Network, NetworkName, NetworkSpec, NodeName,
    PoolIndex, Sticky, Vni,
};

fn network() -> Network {
    let ipv4 = FamilyRecord::new("10.9.0.0/24".parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("ovnet1").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

fn holder(id: &str) -> Holder {
    Holder::Attachment {
        container_id: ContainerId::new(id).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

/// A tmpfs of `size`, seen by the calling thread alone.
fn tmpfs(at: &Path, size: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
}

/// Fills the file system: by a file as large as it gets.
fn fill(dir: &Path) {
    std::fs::write(dir.join("filler"), vec![1; 4 << 20]).unwrap_err();
}

fn empty(dir: &Path) {
    std::fs::remove_file(dir.join("filler")).unwrap();
}

struct Full {
    dir: tempfile::TempDir,
}

impl Full {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        tmpfs(dir.path(), "size=1m");
        let full = Self { dir };
        full.ledger().add_block(&"0-0-4".parse().unwrap()).unwrap();
        full
    }

    fn ledger(&self) -> Ledger {
        Ledger::open(self.dir.path(), network()).unwrap()
    }

    fn reserve(&self, id: &str) -> Result<String, FileError> {
        match self.ledger().reserve(&holder(id), Want::Any, None)? {
            Outcome::Held(held) => Ok(held.addresses[0].to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("networks/ovnet1").join(name)
    }

    /// Takes every address of the block but those that `held` are held.
    fn all_left(&self) -> Vec<String> {
        let mut left = vec![];
        while self.ledger().counts().unwrap().free > 0 {
            left.push(self.reserve(&format!("last{}", left.len())).unwrap());
        }
        left.sort();
        left.dedup();
        left
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

fn assert_says_full(full: &Full, error: &FileError) {
    assert!(error.is_full(), "{error}");
    let text = error.to_string();
    assert!(text.contains("is full"), "{text}");
    assert!(text.contains(full.path("").to_str().unwrap().trim_end_matches('/')), "{text}");
}

#[test]
#[ignore = "needs root"]
fn frees_on_a_full_file_system_whatever_the_state_of_the_index() {
    type Break = fn(&Full);
    let dirty: Break = |full| {
        let mut index = std::fs::read(full.path("index")).unwrap();
        index[48] = 1;
        // In place, as a process that is killed leaves it.
        let file = std::fs::File::options().write(true).open(full.path("index")).unwrap();
        file.write_all_at(&index, 0).unwrap();
    };
    let absent: Break = |full| std::fs::remove_file(full.path("index")).unwrap();
    let whole: Break = |_| {};
    for (state, spoil) in [("whole", whole), ("dirty", dirty), ("absent", absent)] {
        let full = Full::new();
        for id in ["c1", "c2", "c3"] {
            full.reserve(id).unwrap();
        }
        spoil(&full);
        fill(full.dir.path());
        assert_says_full(&full, &full.reserve("c4").unwrap_err());
        let c1 = full.ledger().release(&holder("c1")).unwrap();
        assert!(c1.is_some(), "{state}");
        fill_again(&full);
        let c2 = full.ledger().reservation(&holder("c2")).unwrap().unwrap();
        assert!(full.ledger().release_exactly(&c2).unwrap(), "{state}");
        assert!(!full.ledger().release_exactly(&c2).unwrap(), "{state}");
        assert_eq!(full.ledger().release(&holder("c4")).unwrap(), None, "{state}");
        empty(full.dir.path());
        // 14 of the block's 16 addresses can be had, and c3 has one of them.
        assert_eq!(full.all_left().len(), 13, "{state}");
    }
}

/// Fills up the room that was freed on the way, too.
fn fill_again(full: &Full) {
    let filler = full.dir.path().join("filler");
    let mut file = std::fs::File::options().append(true).open(filler).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
}

#[test]
#[ignore = "needs root"]
fn frees_nothing_without_directories_on_a_full_file_system() {
    let full = Full::new();
    std::fs::remove_dir_all(full.path("")).unwrap();
    std::fs::create_dir_all(full.path("")).unwrap();
    fill(full.dir.path());
    let ledger = Ledger::open_to_free(full.dir.path(), network());
    assert_eq!(ledger.release(&holder("c1")).unwrap(), None);
}

#[test]
#[ignore = "needs root"]
fn frees_a_sticky_address_on_a_full_file_system() {
    let full = Full::new();
    let sticky = Sticky { identity: "web".into(), keep: 3600 };
    let about = weft_ledger::ledger::About { sandbox: None, sticky: Some(&sticky) };
    let held = full.ledger().reserve(&holder("c1"), Want::Any, about).unwrap();
    let Outcome::Held(held) = held else { panic!("{held:?}") };
    fill(full.dir.path());
    assert!(full.ledger().release(&holder("c1")).unwrap().is_some());
    // Its own file made room for the new one.
    let kept = full.ledger().kept(&sticky).unwrap();
    assert_eq!(kept.map(|kept| kept.host), Some(held.host));
    empty(full.dir.path());
    assert_eq!(full.all_left().len(), 13);
}

#[test]
#[ignore = "needs root"]
fn gives_back_a_borrowed_address_on_a_full_file_system() {
    for index_is_there in [true, false] {
        let full = Full::new();
        let loan = Loan { id: LoanId::new(7), lender: NodeName::new("b").unwrap() };
        let place = (PoolIndex::new(0).unwrap(), HostNumber::new(77));
        full.ledger().borrow(&holder("c1"), place, &loan, None.into()).unwrap().unwrap();
        if !index_is_there {
            std::fs::remove_file(full.path("index")).unwrap();
        }
        fill(full.dir.path());
        assert!(full.ledger().release(&holder("c1")).unwrap().is_some());
        assert_eq!(full.ledger().returns().unwrap(), [loan.id]);
        assert_eq!(full.ledger().borrowed(loan.id).unwrap(), None);
        assert!(full.ledger().loans().unwrap().is_empty());
    }
}
