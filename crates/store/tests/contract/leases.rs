//! Leases and their keys.

use std::time::{Duration, Instant};

use weft_store::{Op, Store};

use crate::{LONG, Place, TTL, create, entry, find, json, keys, later};

/// Time by which a lease that is not renewed has ended, the doubled time of Consul included.
const GONE: Duration = Duration::from_secs(8);

async fn wait_until_gone(store: &dyn Store, key: &str) {
    let deadline = Instant::now() + GONE;
    while find(store, key).await.is_some() {
        assert!(Instant::now() < deadline, "{key} is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn lease_lives_until_it_is_revoked(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
    assert!(place.open().renew_lease(&lease).await.unwrap());
    store.revoke_lease(&lease).await.unwrap();
    assert!(!store.renew_lease(&lease).await.unwrap());
    store.revoke_lease(&lease).await.unwrap();
}

pub(crate) async fn put_leased_replaces_any_key_and_binds_it(place: &Place) {
    let store = place.open();
    create(&*store, "alive/a", "without a lease").await;
    let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
    for key in ["alive/a", "alive/new"] {
        for value in ["1", "2"] {
            assert!(store.put_leased(key, json(value), &lease).await.unwrap());
            assert_eq!(entry(&*place.open(), key).await.value, json(value));
        }
    }
    // Like any key, it can be deleted by anyone.
    store.transact(&[Op::delete("alive/new")]).await.unwrap();
    store.revoke_lease(&lease).await.unwrap();
    assert_eq!(store.list("alive/").await.unwrap().entries, []);
}

pub(crate) async fn revoked_lease_deletes_its_keys_and_no_other(place: &Place) {
    let store = place.open();
    let first = store.grant_lease("first", TTL * 10).await.unwrap();
    let second = store.grant_lease("second", TTL * 10).await.unwrap();
    create(&*store, "alive/plain", "1").await;
    for key in ["alive/a", "alive/b"] {
        assert!(store.put_leased(key, json("1"), &first).await.unwrap());
    }
    assert!(store.put_leased("alive/c", json("1"), &second).await.unwrap());
    store.revoke_lease(&first).await.unwrap();
    assert_eq!(keys(&store.list("alive/").await.unwrap().entries), ["alive/c", "alive/plain"]);
}

pub(crate) async fn lease_that_is_not_renewed_ends_and_deletes_its_keys(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("agent", TTL).await.unwrap();
    assert!(store.put_leased("alive/a", json("1"), &lease).await.unwrap());
    // Renewed, it outlives its time, and the doubled time of Consul.
    for _ in 0..10 {
        tokio::time::sleep(TTL * 3 / 10).await;
        assert!(store.renew_lease(&lease).await.unwrap());
    }
    assert_eq!(entry(&*store, "alive/a").await.value, json("1"));
    wait_until_gone(&*store, "alive/a").await;
    assert!(!store.renew_lease(&lease).await.unwrap());
    assert_eq!(store.list("alive/").await.unwrap().entries, []);
    create(&*store, "alive/a", "free again").await;
}

pub(crate) async fn end_of_a_lease_spares_a_key_that_another_took_over(place: &Place) {
    let store = place.open();
    let old = store.grant_lease("old", TTL * 10).await.unwrap();
    assert!(store.put_leased("alive/a", json("old"), &old).await.unwrap());
    let new = store.grant_lease("new", TTL * 10).await.unwrap();
    assert!(store.put_leased("alive/a", json("new"), &new).await.unwrap());
    store.revoke_lease(&old).await.unwrap();
    assert_eq!(entry(&*store, "alive/a").await.value, json("new"));
    store.revoke_lease(&new).await.unwrap();
    assert_eq!(find(&*store, "alive/a").await, None);
}

pub(crate) async fn expiry_of_a_lease_spares_a_key_that_another_took_over(place: &Place) {
    let store = place.open();
    let old = store.grant_lease("old", TTL).await.unwrap();
    for key in ["alive/a", "alive/probe"] {
        assert!(store.put_leased(key, json("old"), &old).await.unwrap());
    }
    let new = store.grant_lease("new", TTL * 20).await.unwrap();
    assert!(store.put_leased("alive/a", json("new"), &new).await.unwrap());
    wait_until_gone(&*store, "alive/probe").await;
    assert_eq!(entry(&*store, "alive/a").await.value, json("new"));
}

pub(crate) async fn ended_lease_writes_nothing(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
    store.revoke_lease(&lease).await.unwrap();
    let before = create(&*store, "alive/a", "another's").await;
    for key in ["alive/a", "alive/b"] {
        assert!(!store.put_leased(key, json("1"), &lease).await.unwrap(), "{key}");
    }
    assert_eq!(store.list("alive/").await.unwrap().entries, [before]);
}

pub(crate) async fn leased_key_that_returns_has_another_revision(place: &Place) {
    let store = place.open();
    let mut seen = vec![];
    for _ in 0..3 {
        let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
        assert!(store.put_leased("alive/a", json("1"), &lease).await.unwrap());
        let revision = entry(&*store, "alive/a").await.revision;
        assert!(!seen.contains(&revision));
        seen.push(revision);
        store.revoke_lease(&lease).await.unwrap();
    }
}

pub(crate) async fn wait_wakes_when_a_lease_is_revoked(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
    assert!(store.put_leased("alive/a", json("1"), &lease).await.unwrap());
    let mut listing = store.list("alive/").await.unwrap();
    let started = Instant::now();
    later(place, async move |store| store.revoke_lease(&lease).await.unwrap());
    while !listing.entries.is_empty() {
        listing = store.next_listing("alive/", &listing.cursor, LONG).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

pub(crate) async fn wait_wakes_when_a_lease_expires(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("agent", TTL).await.unwrap();
    assert!(store.put_leased("alive/a", json("1"), &lease).await.unwrap());
    let started = Instant::now();
    let mut lookup = store.get("alive/a").await.unwrap();
    while lookup.entry.is_some() {
        lookup = store.next_lookup("alive/a", &lookup.cursor, LONG).await.unwrap();
    }
    assert!(started.elapsed() < GONE, "{:?}", started.elapsed());
}
