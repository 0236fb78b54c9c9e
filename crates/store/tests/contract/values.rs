//! Keys and values.

use weft_store::{Op, StoreError};

use crate::{Place, create, entry, find, json, keys};

pub(crate) async fn empty_store_has_no_keys(place: &Place) {
    let store = place.open();
    assert_eq!(find(&*store, "networks/red").await, None);
    assert_eq!(store.list("networks/").await.unwrap().entries, []);
    assert_eq!(store.list("").await.unwrap().entries, []);
}

pub(crate) async fn returns_written_values(place: &Place) {
    let store = place.open();
    // All characters of names and addresses.
    for key in ["networks/Red_1.a-b", "endpoints/red/0-0/0-0-6/fd00::1", "blocks/red/0-0/0-64-6"] {
        create(&*store, key, key).await;
        let read = entry(&*place.open(), key).await;
        assert_eq!((read.key.as_str(), read.value), (key, json(key)));
    }
}

pub(crate) async fn lists_all_keys_of_a_prefix_in_order_and_no_other(place: &Place) {
    let store = place.open();
    for key in ["nodes/b", "nodes/a", "networks/red", "nodesque/c", "nodes/c/deep"] {
        create(&*store, key, key).await;
    }
    let listing = store.list("nodes/").await.unwrap();
    assert_eq!(keys(&listing.entries), ["nodes/a", "nodes/b", "nodes/c/deep"]);
    assert_eq!(listing.entries[0], entry(&*store, "nodes/a").await);
    assert_eq!(store.list("").await.unwrap().entries.len(), 5);
}

pub(crate) async fn refuses_invalid_keys_and_prefixes(place: &Place) {
    let store = place.open();
    let lease = store.grant_lease("test", crate::TTL * 10).await.unwrap();
    let wait = crate::TTL;
    let cursor = store.list("").await.unwrap().cursor;
    for error in [
        store.get("/a").await.unwrap_err(),
        store.list("no").await.unwrap_err(),
        store.wait_key("a/", &cursor, wait).await.unwrap_err(),
        store.wait_prefix("a//", &cursor, wait).await.unwrap_err(),
        store.transact(&[Op::put("a//b", json("1"))]).await.unwrap_err(),
        store.put_leased("a/../b", json("1"), &lease).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    assert_eq!(store.list("").await.unwrap().entries, []);
}

pub(crate) async fn describes_itself_and_passes_its_check(place: &Place) {
    let store = place.open();
    store.check().await.unwrap();
    let name = store.describe();
    if store.is_single_node() {
        assert!(name.starts_with("local store in /"), "{name}");
    } else {
        assert!(name.starts_with("Consul at http://127."), "{name}");
    }
}
