//! Tokens: a store must say that it withholds something, and never show it as absent.

use std::time::Duration;

use weft_store::{Cursor, Expected, Op, Store, StoreError};

use crate::server::Consul;
use crate::{TTL, create, entry, json, keys, run};

const ROOT: &str = "root-token";

/// Checks that `error` names the store and `right`, and says nothing of the token itself.
fn check_denied(error: &StoreError, right: &str) {
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(!error.is_retryable() && text.contains("check the token"), "{text}");
    assert!(text.contains("Consul at http://127.") && text.contains(right), "{text}");
}

#[test]
#[ignore = "needs Consul"]
fn absent_or_unknown_token_is_denied() {
    let server = Consul::start_with_token(ROOT);
    for token in [None, Some("wrong-token")] {
        let store = server.store_with_token("weft", token);
        run(async {
            let root = Cursor::new(1);
            for (error, right) in [
                (store.get("nodes/a").await.unwrap_err(), "read on key \"weft/nodes/a\""),
                (store.list("nodes/").await.unwrap_err(), "read on key_prefix \"weft/nodes/\""),
                (store.list("").await.unwrap_err(), "read on key_prefix \"weft/\""),
                (store.wait_key("nodes/a", &root, TTL).await.unwrap_err(), "weft/nodes/a"),
                (store.wait_prefix("nodes/", &root, TTL).await.unwrap_err(), "weft/nodes/"),
                (
                    store.transact(&[Op::create("a", json("1"))]).await.unwrap_err(),
                    "write on key \"weft/a\"",
                ),
                (store.compare_and_set("a", Expected::Absent, json("1")).await.unwrap_err(), "a"),
                (store.grant_lease("agent", TTL * 10).await.unwrap_err(), "write on sessions"),
            ] {
                check_denied(&error, right);
                assert!(!error.to_string().contains("wrong-token"), "a token is a secret: {error}");
            }
        });
    }
    run(async {
        create(&server.store_with_token("weft", Some(ROOT)), "a", "1").await;
    });
}

#[test]
#[ignore = "needs Consul"]
fn token_for_some_prefixes_is_denied_the_others() {
    let server = Consul::start_with_token(ROOT);
    let token = server.create_token(
        ROOT,
        r#"key_prefix "weft/networks/" { policy = "read" }
           key_prefix "weft/blocks/red/" { policy = "write" }
           key_prefix "weft/endpoints/red/0-1/" { policy = "read" }"#,
    );
    run(async {
        let root = server.store_with_token("weft", Some(ROOT));
        for key in ["networks/red", "nodes/a", "blocks/red/x", "blocks/blue/x"] {
            create(&root, key, "1").await;
        }
        let store = server.store_with_token("weft", Some(&token));
        // Present or empty, as long as the token may read there.
        assert_eq!(keys(&store.list("networks/").await.unwrap().entries), ["networks/red"]);
        assert_eq!(keys(&store.list("blocks/red/").await.unwrap().entries), ["blocks/red/x"]);
        for empty in ["networks/none/", "blocks/red/0-0/", "endpoints/red/0-1/"] {
            assert_eq!(store.list(empty).await.unwrap().entries, [], "{empty}");
        }
        for prefix in ["nodes/", "blocks/blue/", "blocks/green/", "endpoints/red/", "alive/"] {
            let right = format!("read on key_prefix \"weft/{prefix}\"");
            check_denied(&store.list(prefix).await.unwrap_err(), &right);
            // Again: a denial is not forgotten, and a wait tells it too.
            let change = store.wait_prefix(prefix, &Cursor::new(1), TTL).await;
            check_denied(&change.unwrap_err(), &right);
        }
        check_denied(&store.get("nodes/a").await.unwrap_err(), "read on key \"weft/nodes/a\"");
        check_denied(&store.get("nodes/absent").await.unwrap_err(), "weft/nodes/absent");
        assert_eq!(store.get("networks/absent").await.unwrap().entry, None);
        entry(&store, "networks/red").await;

        // The key that may not be written is named, not the first one.
        let ops = [Op::create("blocks/red/y", json("1")), Op::put("networks/red", json("2"))];
        let error = store.transact(&ops).await.unwrap_err();
        check_denied(&error, "write on key \"weft/networks/red\"");
        let ops = [Op::check("nodes/a", Expected::Absent), Op::put("blocks/red/x", json("2"))];
        let error = store.transact(&ops).await.unwrap_err();
        check_denied(&error, "read on key \"weft/nodes/a\"");
        assert_eq!(entry(&root, "blocks/red/x").await.value, json("1"));
    });
}

#[test]
#[ignore = "needs Consul"]
fn lease_needs_the_right_to_its_key_too() {
    let server = Consul::start_with_token(ROOT);
    let rules = r#"session_prefix "" { policy = "write" }
                   key_prefix "weft/alive/a" { policy = "write" }"#;
    let store = server.store_with_token("weft", Some(&server.create_token(ROOT, rules)));
    run(async {
        let lease = store.grant_lease("agent", TTL * 10).await.unwrap();
        assert!(store.put_leased("alive/a", json("1"), &lease).await.unwrap());
        let error = store.put_leased("alive/b", json("1"), &lease).await.unwrap_err();
        check_denied(&error, "write on key \"weft/alive/b\"");
        store.revoke_lease(&lease).await.unwrap();
    });
}

#[test]
#[ignore = "needs Consul"]
fn right_that_is_granted_later_is_noticed_at_once() {
    let server = Consul::start_with_token(ROOT);
    let token = server.create_token(ROOT, r#"key_prefix "weft/x/" { policy = "read" }"#);
    let store = server.store_with_token("weft", Some(&token));
    run(async { check_denied(&store.list("nodes/").await.unwrap_err(), "weft/nodes/") });
    server.change_policy(ROOT, r#"key_prefix "weft/" { policy = "read" }"#);
    run(async {
        // Consul itself takes a moment to apply a policy.
        let started = std::time::Instant::now();
        while store.list("nodes/").await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(35));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}
