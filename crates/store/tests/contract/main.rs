//! What every store promises, tried on each: the embedded one, and Consul.
//!
//! The tests with Consul are ignored unless asked for (`cargo test -- --ignored`); they run the
//! program that `WEFT_TEST_CONSUL` names. What only a server over a network can do wrong stands in `outages`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod outages;
mod server;

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use server::Consul;
use weft_store::{
    Entry, Expected, Listing, LocalStore, MAX_OPS, Op, Store, StoreError, TxnOutcome,
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);

/// The shortest life of a session that every store here grants.
const TTL: Duration = Duration::from_secs(1);

/// An empty store, and the means of opening it once more as another process would.
struct Place {
    open: Box<dyn Fn() -> Box<dyn Store> + Sync>,
    _keep: Box<dyn Any + Sync>,
}

impl Place {
    fn local() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        Self { open: Box::new(move || Box::new(LocalStore::new(&path))), _keep: Box::new(dir) }
    }

    fn consul() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("contract/{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let server = Consul::shared();
        let keep = Box::new(server.clone());
        Self { open: Box::new(move || Box::new(server.store(&prefix))), _keep: keep }
    }

    fn open(&self) -> Box<dyn Store> {
        (self.open)()
    }
}

/// Makes a test of each function for each store.
macro_rules! contract {
    ($($name:ident)*) => {
        mod local {
            $(#[test] fn $name() { super::run(super::$name(&super::Place::local())); })*
        }
        mod consul {
            $(#[test] #[ignore = "needs Consul"]
            fn $name() { super::run(super::$name(&super::Place::consul())); })*
        }
    };
}

contract! {
    an_empty_store_has_nothing
    what_is_written_is_read_back
    a_listing_has_all_keys_of_its_prefix_in_order_and_no_other
    a_key_is_created_once
    a_key_is_changed_only_by_who_knows_its_latest_revision
    a_transaction_does_everything
    a_transaction_in_conflict_does_nothing_and_names_the_operation
    a_transaction_that_is_too_large_is_refused
    a_watch_wakes_on_a_change_by_somebody_else
    a_watch_returns_in_time_when_nothing_changes
    a_watch_misses_nothing_between_two_questions
    a_watch_sees_the_last_of_many_changes
    a_session_lives_until_it_is_ended
    a_key_has_one_holder_at_a_time
    a_session_that_is_not_renewed_ends_and_lets_go
    a_watch_wakes_when_a_holder_ends
    a_watch_wakes_when_a_holder_is_heard_of_no_more
    the_store_says_what_it_is_and_that_it_serves
    increments_by_many_are_never_lost
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG * 2, test).await }).expect("it hangs");
}

fn json(text: &str) -> Vec<u8> {
    format!("{text:?}").into_bytes()
}

fn is_conflict(outcome: &TxnOutcome, place: usize) -> bool {
    matches!(outcome, TxnOutcome::Conflict { op, .. } if *op == place)
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn create(store: &dyn Store, key: &str, value: &str) -> Entry {
    assert!(store.compare_and_set(key, Expected::Absent, json(value)).await.unwrap(), "{key}");
    entry(store, key).await
}

async fn entry(store: &dyn Store, key: &str) -> Entry {
    store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is missing"))
}

/// Does something with the store from another thread, in a while.
fn later(place: &Place, change: impl AsyncFnOnce(Box<dyn Store>) + Send + 'static) {
    let store = place.open();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        run(change(store));
    });
}

async fn an_empty_store_has_nothing(place: &Place) {
    let store = place.open();
    assert_eq!(store.get("networks/red").await.unwrap(), None);
    assert_eq!(store.list("networks/").await.unwrap().entries, []);
    assert_eq!(store.list("").await.unwrap().entries, []);
}

async fn what_is_written_is_read_back(place: &Place) {
    let store = place.open();
    // All that names and addresses consist of.
    for key in ["networks/Red_1.a-b", "endpoints/red/fd00::1", "blocks/red/0-64-6"] {
        create(&*store, key, key).await;
        let read = entry(&*place.open(), key).await;
        assert_eq!((read.key.as_str(), read.value, read.holder), (key, json(key), None));
    }
}

async fn a_listing_has_all_keys_of_its_prefix_in_order_and_no_other(place: &Place) {
    let store = place.open();
    for key in ["nodes/b", "nodes/a", "networks/red", "nodesque/c", "nodes/b/deep"] {
        create(&*store, key, key).await;
    }
    let listing = store.list("nodes/").await.unwrap();
    assert_eq!(keys(&listing), ["nodes/a", "nodes/b", "nodes/b/deep"]);
    assert_eq!(listing.entries[0], entry(&*store, "nodes/a").await);
    assert_eq!(store.list("").await.unwrap().entries.len(), 5);
}

async fn a_key_is_created_once(place: &Place) {
    let (first, second) = (place.open(), place.open());
    create(&*first, "vnis/1", "red").await;
    assert!(!second.compare_and_set("vnis/1", Expected::Absent, json("blue")).await.unwrap());
    assert_eq!(entry(&*second, "vnis/1").await.value, json("red"));
}

async fn a_key_is_changed_only_by_who_knows_its_latest_revision(place: &Place) {
    let store = place.open();
    let first = create(&*store, "nodes/a", "1").await;
    let known = Expected::Revision(first.revision);
    assert!(store.compare_and_set("nodes/a", known, json("2")).await.unwrap());
    let second = entry(&*store, "nodes/a").await;
    assert_ne!(first.revision, second.revision);

    assert!(!store.compare_and_set("nodes/a", known, json("3")).await.unwrap());
    assert_eq!(entry(&*store, "nodes/a").await, second);

    // Nor does a key come back that was removed meanwhile.
    store.transact(&[Op::delete("nodes/a")]).await.unwrap();
    let known = Expected::Revision(second.revision);
    assert!(!store.compare_and_set("nodes/a", known, json("4")).await.unwrap());
    assert_eq!(store.get("nodes/a").await.unwrap(), None);

    // And one that was made anew is another.
    let third = create(&*store, "nodes/a", "2").await;
    assert_ne!(second.revision, third.revision);
}

async fn a_transaction_does_everything(place: &Place) {
    let store = place.open();
    let [a, b, c] = ["a", "b", "c"];
    let (old_a, old_b) = (create(&*store, a, "1").await, create(&*store, b, "1").await);
    create(&*store, c, "1").await;
    let ops = [
        Op::check("missing", Expected::Absent),
        Op::check(b, Expected::Revision(old_b.revision)),
        Op::create("new", json("1")),
        Op::Write { key: a.into(), expected: Expected::Revision(old_a.revision), value: json("2") },
        Op::DeleteIf { key: b.into(), revision: old_b.revision },
        Op::Set { key: c.into(), value: json("2") },
        // What is gone already is no conflict.
        Op::delete("missing"),
    ];
    assert_eq!(store.transact(&ops).await.unwrap(), TxnOutcome::Committed);
    let listing = place.open().list("").await.unwrap();
    assert_eq!(keys(&listing), [a, c, "new"]);
    assert_eq!(listing.entries[0].value, json("2"));
    assert_eq!(listing.entries[1].value, json("2"));
}

async fn a_transaction_in_conflict_does_nothing_and_names_the_operation(place: &Place) {
    let store = place.open();
    let stale = create(&*store, "a", "1").await.revision;
    store.transact(&[Op::Set { key: "a".into(), value: json("2") }]).await.unwrap();
    let before = store.list("").await.unwrap().entries;
    let write = |expected| Op::Write { key: "a".into(), expected, value: json("3") };
    for bad in [
        Op::create("a", json("3")),
        write(Expected::Revision(stale)),
        Op::DeleteIf { key: "a".into(), revision: stale },
        Op::check("a", Expected::Absent),
        Op::check("a", Expected::Revision(stale)),
        Op::check("missing", Expected::Revision(stale)),
    ] {
        let ops = [Op::create("b", json("1")), bad.clone(), Op::delete("a")];
        let outcome = store.transact(&ops).await.unwrap();
        assert!(is_conflict(&outcome, 1), "{bad:?}: {outcome:?}");
        assert_eq!(store.list("").await.unwrap().entries, before, "{bad:?}");
    }
}

async fn a_transaction_that_is_too_large_is_refused(place: &Place) {
    let store = place.open();
    let ops =
        |count| (0..count).map(|n| Op::create(format!("k/{n}"), json("1"))).collect::<Vec<_>>();
    let error = store.transact(&ops(MAX_OPS + 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert_eq!(store.list("k/").await.unwrap().entries, []);
    assert_eq!(store.transact(&ops(MAX_OPS)).await.unwrap(), TxnOutcome::Committed);
    assert_eq!(store.list("k/").await.unwrap().entries.len(), MAX_OPS);
}

async fn a_watch_wakes_on_a_change_by_somebody_else(place: &Place) {
    let store = place.open();
    // Made, changed, removed; the first time the prefix is empty.
    let changes = [
        Op::create("nodes/a", json("1")),
        Op::Set { key: "nodes/a".into(), value: json("2") },
        Op::delete("nodes/a"),
    ];
    let mut listing = store.list("nodes/").await.unwrap();
    for change in changes {
        let (started, before) = (Instant::now(), listing.entries.clone());
        later(place, async move |store| drop(store.transact(&[change]).await.unwrap()));
        // It may wake for nothing, but not for ever.
        while listing.entries == before {
            listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    assert_eq!(listing.entries, []);
}

async fn a_watch_returns_in_time_when_nothing_changes(place: &Place) {
    let store = place.open();
    for prefix in ["nodes/", "empty/"] {
        create(&*store, "nodes/a", "1").await;
        let listing = store.list(prefix).await.unwrap();
        let mut next = listing.clone();
        let started = Instant::now();
        // An early answer is allowed once: the cursor of a listing may be behind.
        for _ in 0..2 {
            next = store.watch(prefix, &next.cursor, Duration::from_secs(1)).await.unwrap();
        }
        let took = started.elapsed();
        assert_eq!(next.entries, listing.entries);
        assert!(Duration::from_millis(900) < took && took < Duration::from_secs(6), "{took:?}");
        store.transact(&[Op::delete("nodes/a")]).await.unwrap();
    }
}

async fn a_watch_misses_nothing_between_two_questions(place: &Place) {
    let store = place.open();
    let mut listing = store.list("nodes/").await.unwrap();
    for n in 0..5 {
        create(&*place.open(), &format!("nodes/{n}"), "1").await;
        let started = Instant::now();
        while listing.entries.len() < n + 1 {
            listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

async fn a_watch_sees_the_last_of_many_changes(place: &Place) {
    let store = place.open();
    let mut listing = store.list("nodes/").await.unwrap();
    later(place, async move |store| {
        for n in 0..=100 {
            let set = Op::Set { key: "nodes/a".into(), value: json(&n.to_string()) };
            store.transact(&[set]).await.unwrap();
        }
    });
    let started = Instant::now();
    while listing.entries.first().is_none_or(|entry| entry.value != json("100")) {
        listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
    }
    assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
}

async fn a_session_lives_until_it_is_ended(place: &Place) {
    let store = place.open();
    let session = store.create_session("agent", TTL * 10).await.unwrap();
    assert!(place.open().renew_session(&session).await.unwrap());
    store.destroy_session(&session).await.unwrap();
    assert!(!store.renew_session(&session).await.unwrap());
    store.destroy_session(&session).await.unwrap();
    let refused = store.acquire("nodes/a", json("1"), &session).await;
    assert!(!matches!(refused, Ok(true)), "a dead session holds a key");
    assert_eq!(store.get("nodes/a").await.unwrap(), None);
}

async fn a_key_has_one_holder_at_a_time(place: &Place) {
    let store = place.open();
    let mine = store.create_session("mine", TTL * 10).await.unwrap();
    let other = store.create_session("other", TTL * 10).await.unwrap();
    assert!(store.acquire("nodes/a", json("mine"), &mine).await.unwrap());
    assert!(!store.acquire("nodes/a", json("other"), &other).await.unwrap());
    let held = entry(&*place.open(), "nodes/a").await;
    assert_eq!((held.value, held.holder), (json("mine"), Some(mine.clone())));

    // The holder may write again, and a plain write leaves the key with its holder.
    assert!(store.acquire("nodes/a", json("again"), &mine).await.unwrap());
    let known = Expected::Revision(entry(&*store, "nodes/a").await.revision);
    assert!(store.compare_and_set("nodes/a", known, json("plain")).await.unwrap());
    assert_eq!(entry(&*store, "nodes/a").await.holder, Some(mine.clone()));

    // When the session ends the key stays, and is the next one's to take.
    store.destroy_session(&mine).await.unwrap();
    let free = entry(&*store, "nodes/a").await;
    assert_eq!((free.value, free.holder), (json("plain"), None));
    assert!(store.acquire("nodes/a", json("other"), &other).await.unwrap());
    assert_eq!(entry(&*store, "nodes/a").await.holder, Some(other));
}

async fn a_session_that_is_not_renewed_ends_and_lets_go(place: &Place) {
    let store = place.open();
    let session = store.create_session("agent", TTL).await.unwrap();
    assert!(store.acquire("nodes/a", json("1"), &session).await.unwrap());
    // Renewed, it outlives its time, and the doubled time that Consul grants.
    for _ in 0..10 {
        tokio::time::sleep(TTL * 3 / 10).await;
        assert!(store.renew_session(&session).await.unwrap());
    }
    assert_eq!(entry(&*store, "nodes/a").await.holder, Some(session.clone()));
    let deadline = Instant::now() + TTL * 8;
    while entry(&*store, "nodes/a").await.holder.is_some() {
        assert!(Instant::now() < deadline, "the session does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!store.renew_session(&session).await.unwrap());
    assert_eq!(entry(&*store, "nodes/a").await.value, json("1"));
}

async fn a_watch_wakes_when_a_holder_ends(place: &Place) {
    let store = place.open();
    let session = store.create_session("agent", TTL * 10).await.unwrap();
    assert!(store.acquire("nodes/a", json("1"), &session).await.unwrap());
    let mut listing = store.list("nodes/").await.unwrap();
    assert_eq!(listing.entries[0].holder, Some(session.clone()));
    let started = Instant::now();
    later(place, async move |store| store.destroy_session(&session).await.unwrap());
    while listing.entries[0].holder.is_some() {
        listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

async fn a_watch_wakes_when_a_holder_is_heard_of_no_more(place: &Place) {
    let store = place.open();
    let session = store.create_session("agent", TTL).await.unwrap();
    assert!(store.acquire("nodes/a", json("1"), &session).await.unwrap());
    let mut listing = store.list("nodes/").await.unwrap();
    assert_eq!(listing.entries[0].holder, Some(session));
    let started = Instant::now();
    while listing.entries[0].holder.is_some() {
        listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
    }
    // Some stores give a session of a second twenty.
    assert!(started.elapsed() < TTL * 8, "{:?}", started.elapsed());
    assert_eq!(listing.entries[0].value, json("1"));
}

async fn the_store_says_what_it_is_and_that_it_serves(place: &Place) {
    let store = place.open();
    store.check().await.unwrap();
    let name = store.describe();
    if store.is_single_node() {
        assert!(name.starts_with("local store in /"), "{name}");
    } else {
        assert!(name.starts_with("Consul at http://127."), "{name}");
    }
}

async fn increments_by_many_are_never_lost(place: &Place) {
    const TASKS: u32 = 8;
    const EACH: u32 = 50;
    let value = |entry: &Entry| serde_json::from_slice::<u32>(&entry.value).unwrap();
    let store = place.open();
    assert!(store.compare_and_set("n", Expected::Absent, b"0".to_vec()).await.unwrap());
    std::thread::scope(|scope| {
        for _ in 0..TASKS {
            // Each with a store of its own: another process, as far as the store can see.
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
