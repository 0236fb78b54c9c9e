//! Waiting for changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weft_store::{Cursor, Entry, Op, Store};

use crate::{LONG, Place, create, entry, find, json, later, run};

/// Long enough that a change elsewhere, after a third of a second, would be noticed.
const SHORT: Duration = Duration::from_secs(1);

/// A creation, a change and a deletion of a key.
fn life_of(key: &str) -> [Op; 3] {
    [Op::create(key, json("1")), Op::put(key, json("2")), Op::delete(key)]
}

pub(crate) async fn wait_prefix_wakes_on_each_kind_of_change(place: &Place) {
    let store = place.open();
    let mut listing = store.list("nodes/").await.unwrap();
    for change in life_of("nodes/a") {
        let (started, before) = (Instant::now(), listing.entries.clone());
        later(place, async move |store| drop(store.transact(&[change]).await.unwrap()));
        // A wait may return early, but the change must come.
        while listing.entries == before {
            listing = store.next_listing("nodes/", &listing.cursor, LONG).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    assert_eq!(listing.entries, []);
}

pub(crate) async fn wait_key_wakes_on_each_kind_of_change(place: &Place) {
    let store = place.open();
    let mut lookup = store.get("nodes/a").await.unwrap();
    for change in life_of("nodes/a") {
        let (started, before) = (Instant::now(), lookup.entry.clone());
        later(place, async move |store| drop(store.transact(&[change]).await.unwrap()));
        while lookup.entry == before {
            lookup = store.next_lookup("nodes/a", &lookup.cursor, LONG).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    assert_eq!(lookup.entry, None);
}

/// Waits twice, for a second each, and returns the time that it took. An early return is allowed
/// once: the cursor of a read may be behind.
async fn two_waits_on_key(store: &dyn Store, key: &str, mut cursor: Cursor) -> Duration {
    let started = Instant::now();
    for _ in 0..2 {
        cursor = store.wait_key(key, &cursor, SHORT).await.unwrap().cursor;
    }
    started.elapsed()
}

async fn two_waits_on_prefix(store: &dyn Store, prefix: &str, mut cursor: Cursor) -> Duration {
    let started = Instant::now();
    for _ in 0..2 {
        cursor = store.wait_prefix(prefix, &cursor, SHORT).await.unwrap().cursor;
    }
    started.elapsed()
}

fn check_blocked(took: Duration, subject: &str) {
    let expected = Duration::from_millis(900)..Duration::from_secs(6);
    assert!(expected.contains(&took), "{subject}: {took:?}");
}

pub(crate) async fn wait_returns_in_time_when_nothing_changes(place: &Place) {
    let store = place.open();
    create(&*store, "nodes/a", "1").await;
    for prefix in ["nodes/", "empty/"] {
        let cursor = store.list(prefix).await.unwrap().cursor;
        check_blocked(two_waits_on_prefix(&*store, prefix, cursor).await, prefix);
    }
    for key in ["nodes/a", "nodes/absent"] {
        let cursor = store.get(key).await.unwrap().cursor;
        check_blocked(two_waits_on_key(&*store, key, cursor).await, key);
    }
}

pub(crate) async fn wait_misses_nothing_between_two_calls(place: &Place) {
    let store = place.open();
    let mut listing = store.list("nodes/").await.unwrap();
    for n in 0..5 {
        create(&*place.open(), &format!("nodes/{n}"), "1").await;
        let started = Instant::now();
        while listing.entries.len() < n + 1 {
            listing = store.next_listing("nodes/", &listing.cursor, LONG).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}

pub(crate) async fn wait_sees_the_last_of_many_changes(place: &Place) {
    let store = place.open();
    let mut lookup = store.get("nodes/a").await.unwrap();
    later(place, async move |store| {
        for n in 0..=100 {
            store.transact(&[Op::put("nodes/a", json(&n.to_string()))]).await.unwrap();
        }
    });
    let started = Instant::now();
    while lookup.entry.is_none_or(|entry| entry.value != json("100")) {
        lookup = store.next_lookup("nodes/a", &lookup.cursor, LONG).await.unwrap();
    }
    assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
}

pub(crate) async fn wait_key_blocks_in_spite_of_a_sibling(place: &Place) {
    let store = place.open();
    for present in [false, true] {
        if present {
            create(&*store, "a/b", "1").await;
        }
        let cursor = store.get("a/b").await.unwrap().cursor;
        // Newer than the cursor, and with the key as a prefix of its own.
        store.transact(&[Op::put("a/bc", json(&present.to_string()))]).await.unwrap();
        let took = two_waits_on_key(&*store, "a/b", cursor).await;
        check_blocked(took, if present { "present" } else { "absent" });
    }
}

/// Runs `wait` while another thread writes `key` all the time.
async fn while_writing(place: &Place, key: &'static str, wait: impl Future<Output = ()>) {
    let (store, stop) = (place.open(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        run(async {
            for n in 0.. {
                store.transact(&[Op::put(key, json(&format!("{n}")))]).await.unwrap();
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
    wait.await;
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

pub(crate) async fn wait_key_ignores_changes_of_siblings(place: &Place) {
    let store = place.open();
    create(&*store, "a/b", "1").await;
    let cursor = store.get("a/b").await.unwrap().cursor;
    while_writing(place, "a/bc", async {
        check_blocked(two_waits_on_key(&*store, "a/b", cursor).await, "a/b");
    })
    .await;
}

pub(crate) async fn wait_prefix_ignores_other_prefixes(place: &Place) {
    let store = place.open();
    create(&*store, "a/b/c", "1").await;
    let cursor = store.list("a/b/").await.unwrap().cursor;
    while_writing(place, "a/bc/d", async {
        check_blocked(two_waits_on_prefix(&*store, "a/b/", cursor).await, "a/b/");
    })
    .await;
}

pub(crate) async fn state_that_is_sent_along_is_the_state(place: &Place) {
    let store = place.open();
    let (list, get) = (store.list("a/").await.unwrap(), store.get("a/b").await.unwrap());
    let written = create(&*store, "a/b", "1").await;
    let is_written = |entries: Vec<Entry>| entries == [written.clone()];
    // Immediately after the write, so that a store may be a little behind at first.
    let (mut in_list, mut in_key) = (list.cursor, get.cursor);
    let deadline = Instant::now() + LONG;
    loop {
        let change = store.wait_prefix("a/", &in_list, SHORT).await.unwrap();
        in_list = change.cursor;
        if change.state.is_none_or(is_written) {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    loop {
        let change = store.wait_key("a/b", &in_key, SHORT).await.unwrap();
        in_key = change.cursor;
        if change.state.is_none_or(|state| state.as_ref() == Some(&written)) {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(find(&*store, "a/b").await, Some(entry(&*store, "a/b").await));
}
