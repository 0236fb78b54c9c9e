//! What a store does while its server is away, mute, new, or says no.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use weft_store::{ConsulOptions, ConsulStore, Expected, Op, Store, StoreError};

use crate::server::Consul;
use crate::{LONG, create, entry, json, run};

fn store_at(address: &str) -> ConsulStore {
    ConsulStore::new(&ConsulOptions::at(address), "weft/v1").unwrap()
}

/// Runs `test`, which must fail within `limit`, and checks that its error names `address`.
fn fails_in_time<T: std::fmt::Debug>(
    address: &str,
    limit: Duration,
    test: impl Future<Output = Result<T, StoreError>>,
) -> StoreError {
    let started = Instant::now();
    let mut error = None;
    run(async { error = Some(test.await.unwrap_err()) });
    let (took, error) = (started.elapsed(), error.unwrap());
    assert!(took < limit, "it took {took:?}: {error}");
    assert!(error.to_string().contains(address), "{error}");
    error
}

#[test]
fn a_server_that_is_not_there_is_named_at_once() {
    // Nobody listens on the reserved port 1.
    let address = "http://127.0.0.1:1";
    let (store, limit) = (store_at(address), Duration::from_secs(2));
    let errors = [
        fails_in_time(address, limit, store.get("a")),
        fails_in_time(address, limit, store.list("")),
        fails_in_time(address, limit, store.compare_and_set("a", Expected::Absent, json("1"))),
        fails_in_time(address, limit, store.transact(&[Op::delete("a")])),
        fails_in_time(address, limit, store.create_session("agent", LONG)),
        fails_in_time(address, limit, store.check()),
    ];
    assert!(errors.iter().all(StoreError::is_retryable), "{errors:?}");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let store = store_at(&address);
    // A runtime asks for the status every few seconds and does not wait long.
    let error = fails_in_time(&address, Duration::from_millis(1500), store.check());
    assert!(error.is_retryable());
    let error = fails_in_time(&address, Duration::from_secs(8), store.get("a"));
    assert!(error.is_retryable());
}

#[test]
#[ignore = "needs Consul"]
fn a_server_without_a_leader_cannot_be_used_now() {
    let server = Consul::start_without_leader();
    let (store, url) = (server.store("weft"), server.url());
    let error = fails_in_time(&url, Duration::from_millis(1500), store.check());
    assert!(error.is_retryable() && error.to_string().contains("no leader"), "{error}");
    let create = store.compare_and_set("a", Expected::Absent, json("1"));
    assert!(fails_in_time(&url, Duration::from_secs(8), create).is_retryable());
}

#[test]
#[ignore = "needs Consul"]
fn who_has_no_valid_token_is_told_so() {
    let server = Consul::start_with_token("root-token");
    let url = server.url();
    for token in [None, Some("wrong-token")] {
        let store = server.store_with_token("weft", token);
        let limit = Duration::from_secs(2);
        for error in [
            fails_in_time(&url, limit, store.get("a")),
            fails_in_time(&url, limit, store.compare_and_set("a", Expected::Absent, json("1"))),
            fails_in_time(&url, limit, store.transact(&[Op::create("a", json("1"))])),
            fails_in_time(&url, limit, store.create_session("agent", LONG)),
        ] {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Denied { .. }), "{text}");
            assert!(!error.is_retryable() && text.contains("check the token"), "{text}");
            assert!(!text.contains("wrong-token"), "a token is a secret: {text}");
        }
    }
    run(async {
        create(&server.store_with_token("weft", Some("root-token")), "a", "1").await;
    });
}

#[test]
#[ignore = "needs Consul"]
fn prefixes_keep_clusters_on_one_server_apart() {
    let server = Consul::shared();
    run(async {
        let (one, other) = (server.store("apart/v1"), server.store("/apart/v1x/"));
        create(&one, "nodes/a", "one").await;
        create(&other, "nodes/a", "other").await;
        assert_eq!(entry(&one, "nodes/a").await.value, json("one"));
        assert_eq!(one.list("").await.unwrap().entries.len(), 1);
    });
}

#[test]
#[ignore = "needs Consul"]
fn the_first_write_after_a_restart_succeeds() {
    let mut server = Consul::start();
    let store = server.store("weft");
    // One runtime throughout: the connection that the restart breaks is the one that was used before.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(create(&store, "a", "1"));
    server.kill();
    server.start_anew();
    runtime.block_on(create(&store, "a", "2"));
}

#[test]
#[ignore = "needs Consul"]
fn an_open_watch_ends_with_its_server() {
    let mut server = Consul::start();
    let (store, url) = (server.store("weft"), server.url());
    let mut listing = None;
    run(async { listing = Some(store.list("").await.unwrap()) });
    let cursor = listing.unwrap().cursor;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        server.kill();
        server
    });
    // The first answer may come at once.
    let watches = async {
        let listing = store.watch("", &cursor, LONG).await?;
        store.watch("", &listing.cursor, LONG).await
    };
    assert!(fails_in_time(&url, Duration::from_secs(5), watches).is_retryable());
    drop(killer.join());
}

#[test]
#[ignore = "needs Consul"]
fn a_watch_goes_on_where_a_new_server_counts_from_the_start() {
    let mut server = Consul::start();
    let store = server.store("weft");
    let wait = Duration::from_secs(2);
    let mut listing = None;
    run(async {
        for n in 0..50 {
            create(&store, &format!("nodes/{n}"), "1").await;
        }
        listing = Some(store.list("nodes/").await.unwrap());
    });
    server.kill();
    server.start_anew();
    let mut listing = listing.unwrap();
    assert_eq!(listing.entries.len(), 50);
    run(async {
        // What the old server had is gone, and a watch with the old cursor finds out.
        let started = Instant::now();
        while !listing.entries.is_empty() {
            listing = store.watch("nodes/", &listing.cursor, wait).await.unwrap();
        }
        assert!(started.elapsed() < wait * 3, "{:?}", started.elapsed());
        // From then on changes are news again, at once.
        for n in 0..3 {
            create(&server.store("weft"), &format!("nodes/new{n}"), "1").await;
            let started = Instant::now();
            while listing.entries.len() < n + 1 {
                listing = store.watch("nodes/", &listing.cursor, LONG).await.unwrap();
            }
            assert!(started.elapsed() < wait, "{:?}", started.elapsed());
        }
    });
}
