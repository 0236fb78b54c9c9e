//! Compare-and-set and transactions.

use weft_model::{Block, NetworkName};
use weft_store::{Entry, Expected, MAX_BYTES, MAX_OPS, Op, StoreError, TxnOutcome};

use crate::{Place, create, entry, find, json, keys, run};

/// The key that a transaction failed at.
fn conflicting_key(outcome: &TxnOutcome) -> &str {
    match outcome {
        TxnOutcome::Conflict { key, reason } => {
            assert!(!reason.is_empty());
            key
        }
        TxnOutcome::Committed => panic!("it was committed"),
    }
}

pub(crate) async fn creates_a_key_once(place: &Place) {
    let (first, second) = (place.open(), place.open());
    create(&*first, "vnis/1", "red").await;
    assert!(!second.compare_and_set("vnis/1", Expected::Absent, json("blue")).await.unwrap());
    assert_eq!(entry(&*second, "vnis/1").await.value, json("red"));
}

pub(crate) async fn updates_only_the_latest_revision(place: &Place) {
    let store = place.open();
    let first = create(&*store, "nodes/a", "1").await;
    let known = Expected::Revision(first.revision);
    assert!(store.compare_and_set("nodes/a", known, json("2")).await.unwrap());
    let second = entry(&*store, "nodes/a").await;
    assert_ne!(first.revision, second.revision);
    assert!(!store.compare_and_set("nodes/a", known, json("3")).await.unwrap());
    assert_eq!(entry(&*store, "nodes/a").await, second);
    // An update does not bring a deleted key back.
    store.transact(&[Op::delete("nodes/a")]).await.unwrap();
    let known = Expected::Revision(second.revision);
    assert!(!store.compare_and_set("nodes/a", known, json("4")).await.unwrap());
    assert_eq!(find(&*store, "nodes/a").await, None);
}

pub(crate) async fn recreated_key_does_not_pass_for_the_old_one(place: &Place) {
    let store = place.open();
    // The same number of writes in both lives.
    for _ in 0..2 {
        let old = create(&*store, "nodes/a", "1").await.revision;
        store.transact(&[Op::delete("nodes/a")]).await.unwrap();
        let new = create(&*store, "nodes/a", "1").await;
        assert_ne!(old, new.revision);
        for op in [
            Op::update("nodes/a", old, json("2")),
            Op::delete_if("nodes/a", old),
            Op::check("nodes/a", Expected::Revision(old)),
        ] {
            let outcome = store.transact(std::slice::from_ref(&op)).await.unwrap();
            assert_eq!(conflicting_key(&outcome), "nodes/a", "{op:?}");
        }
        assert_eq!(entry(&*store, "nodes/a").await, new);
        store.transact(&[Op::delete("nodes/a")]).await.unwrap();
    }
}

pub(crate) async fn transaction_does_everything(place: &Place) {
    let store = place.open();
    let [a, b, c, d] = ["a", "b", "c", "d"];
    let (old_a, old_b) = (create(&*store, a, "1").await, create(&*store, b, "1").await);
    create(&*store, c, "1").await;
    let old_d = create(&*store, d, "1").await;
    let ops = [
        Op::check("absent", Expected::Absent),
        Op::check(d, Expected::Revision(old_d.revision)),
        Op::create("new", json("1")),
        Op::update(a, old_a.revision, json("2")),
        Op::delete_if(b, old_b.revision),
        Op::put(c, json("2")),
        Op::put("put", json("1")),
        // An absent key is no conflict.
        Op::delete("gone"),
    ];
    assert_eq!(store.transact(&ops).await.unwrap(), TxnOutcome::Committed);
    let entries = place.open().list("").await.unwrap().entries;
    assert_eq!(keys(&entries), [a, c, d, "new", "put"]);
    assert_eq!((&entries[0].value, &entries[1].value), (&json("2"), &json("2")));
    // A check is no write.
    assert_eq!(entries[2], old_d);
    assert_eq!(store.transact(&[]).await.unwrap(), TxnOutcome::Committed);
}

pub(crate) async fn conflict_names_the_key_and_changes_nothing(place: &Place) {
    let store = place.open();
    let stale = create(&*store, "a", "1").await.revision;
    create(&*store, "c", "1").await;
    store.transact(&[Op::put("a", json("2"))]).await.unwrap();
    let before = store.list("").await.unwrap().entries;
    for (bad, key) in [
        (Op::create("a", json("3")), "a"),
        (Op::update("a", stale, json("3")), "a"),
        (Op::update("absent", stale, json("3")), "absent"),
        (Op::delete_if("a", stale), "a"),
        (Op::delete_if("absent", stale), "absent"),
        (Op::check("a", Expected::Absent), "a"),
        (Op::check("a", Expected::Revision(stale)), "a"),
        (Op::check("absent", Expected::Revision(stale)), "absent"),
    ] {
        let ops = [Op::create("b", json("1")), bad.clone(), Op::delete("c")];
        let outcome = store.transact(&ops).await.unwrap();
        assert_eq!(conflicting_key(&outcome), key, "{bad:?}");
        assert_eq!(store.list("").await.unwrap().entries, before, "{bad:?}");
    }
}

pub(crate) async fn conflict_names_the_first_of_several_keys(place: &Place) {
    let store = place.open();
    for key in ["a", "b"] {
        create(&*store, key, "1").await;
    }
    let ops =
        [Op::create("c", json("1")), Op::create("b", json("1")), Op::check("a", Expected::Absent)];
    assert_eq!(conflicting_key(&store.transact(&ops).await.unwrap()), "b");
}

pub(crate) async fn refuses_a_key_that_occurs_twice(place: &Place) {
    let store = place.open();
    let ops =
        [Op::check("a", Expected::Absent), Op::create("b", json("1")), Op::create("a", json("1"))];
    let error = store.transact(&ops).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("a occurs twice"), "{error}");
    assert_eq!(store.list("").await.unwrap().entries, []);
}

pub(crate) async fn refuses_too_many_operations_and_too_many_bytes(place: &Place) {
    let store = place.open();
    let many: Vec<Op> = (0..=MAX_OPS).map(|n| Op::create(format!("k/{n}"), json("1"))).collect();
    let large = [Op::create("k/large", json(&"x".repeat(MAX_BYTES)))];
    let old = create(&*store, "old", "1").await.revision;
    let conditional: Vec<Op> =
        (0..=MAX_OPS / 2).map(|n| Op::delete_if(format!("k/{n}"), old)).collect();
    for ops in [&many[..], &large, &conditional] {
        let error = store.transact(ops).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    }
    assert_eq!(store.list("k/").await.unwrap().entries, []);
}

pub(crate) async fn takes_the_largest_transaction(place: &Place) {
    let store = place.open();
    let value = json(&"x".repeat(MAX_BYTES / MAX_OPS - 10));
    let ops: Vec<Op> = (0..MAX_OPS).map(|n| Op::create(format!("k/{n}"), value.clone())).collect();
    assert_eq!(store.transact(&ops).await.unwrap(), TxnOutcome::Committed);
    let written = store.list("k/").await.unwrap().entries;
    assert_eq!(written.len(), MAX_OPS);
    for half in written.chunks(MAX_OPS / 2) {
        let ops: Vec<Op> =
            half.iter().map(|entry| Op::delete_if(&*entry.key, entry.revision)).collect();
        assert_eq!(store.transact(&ops).await.unwrap(), TxnOutcome::Committed);
    }
    assert_eq!(store.list("k/").await.unwrap().entries, []);
}

pub(crate) async fn concurrent_increments_are_never_lost(place: &Place) {
    const TASKS: u32 = 8;
    const EACH: u32 = 50;
    let value = |entry: &Entry| serde_json::from_slice::<u32>(&entry.value).unwrap();
    let store = place.open();
    assert!(store.compare_and_set("n", Expected::Absent, b"0".to_vec()).await.unwrap());
    std::thread::scope(|scope| {
        for _ in 0..TASKS {
            // Each with a store of its own, as in a process of its own.
            scope.spawn(|| {
                let store = place.open();
                run(async {
                    for _ in 0..EACH {
                        loop {
                            let read = entry(&*store, "n").await;
                            let next = (value(&read) + 1).to_string().into_bytes();
                            let known = Expected::Revision(read.revision);
                            if store.compare_and_set("n", known, next).await.unwrap() {
                                break;
                            }
                        }
                    }
                });
            });
        }
    });
    assert_eq!(value(&entry(&*store, "n").await), TASKS * EACH);
}

pub(crate) async fn revision_keys_change_with_every_touch(place: &Place) {
    use weft_store::keys::{self, Group};

    let store = place.open();
    let network = NetworkName::new("red").unwrap();
    let block: Block = "0-64-6".parse().unwrap();
    let id = format!("{network}@00000000").parse().unwrap();
    let key = keys::revision(&network, Group::of(&block));
    let mut seen = vec![];
    for nonce in 0..4 {
        // The same value again, which Consul does not write: only the touch tells.
        let ops = vec![Op::put(keys::block(&id, &block), json("owner"))];
        let ops = keys::with_revisions(ops, nonce);
        assert_eq!(store.transact(&ops).await.unwrap(), TxnOutcome::Committed);
        let revision = entry(&*store, &key).await.revision;
        assert!(!seen.contains(&revision));
        seen.push(revision);
    }
}
