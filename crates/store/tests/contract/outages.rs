//! Stores that cannot serve: Consul while its server is absent, silent, without a leader, or
//! replaced, and the local store on a file system that is read-only.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use weft_store::{
    ConsulOptions, ConsulStore, Cursor, Expected, Lease, LocalStore, Op, Store, StoreError,
};

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
fn absent_server_is_named_at_once() {
    // Nothing listens on the reserved port 1.
    let address = "http://127.0.0.1:1";
    let (store, limit) = (store_at(address), Duration::from_secs(2));
    let errors = [
        fails_in_time(address, limit, store.get("a")),
        fails_in_time(address, limit, store.list("")),
        fails_in_time(address, limit, store.compare_and_set("a", Expected::Absent, json("1"))),
        fails_in_time(address, limit, store.transact(&[Op::delete("a")])),
        fails_in_time(address, limit, store.wait_key("a", &Cursor::new(1), LONG)),
        fails_in_time(address, limit, store.grant_lease("agent", LONG)),
        fails_in_time(address, limit, store.put_leased("a", json("1"), &Lease::new("x"))),
        fails_in_time(address, limit, store.check()),
    ];
    assert!(errors.iter().all(StoreError::is_retryable), "{errors:?}");
}

#[test]
fn silent_server_is_given_up() {
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
#[ignore = "needs root"]
fn check_fails_on_a_read_only_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let test = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("needs root");
        let stores = [LocalStore::new(&path), LocalStore::new(path.join("new/store"))];
        run(async {
            for store in &stores {
                store.check().await.unwrap();
            }
        });
        command("mount", &["--make-rprivate", "/"]);
        command("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", path.to_str().unwrap()]);
        run(async {
            for store in &stores {
                let error = store.check().await.unwrap_err();
                assert!(error.is_retryable(), "{error}");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                // Reading goes on.
                assert_eq!(store.list("").await.unwrap().entries, []);
            }
        });
    });
    test.join().unwrap();
}

fn command(program: &str, arguments: &[&str]) {
    assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
}

#[test]
#[ignore = "needs root"]
fn silently_dead_server_ends_a_wait_within_seconds() {
    // In a network of its own, which is cut as a power failure of the server would cut it: no
    // packet says that the connection is over.
    let test = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        set_loopback("up");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let cutter = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            // The request has arrived.
            let read = std::io::Read::read(&mut peer, &mut [0; 1024]).unwrap();
            assert!(read > 0);
            set_loopback("down");
            peer
        });
        let store = store_at(&address);
        let cursor = Cursor::new(5);
        let wait = store.wait_prefix("nodes/", &cursor, Duration::from_secs(60));
        let error = fails_in_time(&address, Duration::from_secs(14), wait);
        assert!(error.is_retryable(), "{error}");
        drop(cutter.join());
    });
    test.join().unwrap();
}

fn set_loopback(state: &str) {
    command("ip", &["link", "set", "lo", state]);
}

#[test]
#[ignore = "needs Consul"]
fn server_without_a_leader_cannot_be_used_now() {
    let server = Consul::start_without_leader();
    let (store, url) = (server.store("weft"), server.url());
    let error = fails_in_time(&url, Duration::from_millis(1500), store.check());
    assert!(error.is_retryable() && error.to_string().contains("no leader"), "{error}");
    let create = store.compare_and_set("a", Expected::Absent, json("1"));
    assert!(fails_in_time(&url, Duration::from_secs(8), create).is_retryable());
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
fn first_write_after_a_restart_succeeds() {
    let mut server = Consul::start();
    let store = server.store("weft");
    // One runtime throughout: the connection that the restart breaks is the one that was used
    // before.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(create(&store, "a", "1"));
    server.kill();
    server.restart_empty();
    runtime.block_on(create(&store, "a", "2"));
}

#[test]
#[ignore = "needs Consul"]
fn open_wait_ends_with_its_server() {
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
    let waits = async {
        let change = store.wait_prefix("", &cursor, LONG).await?;
        store.wait_prefix("", &change.cursor, LONG).await
    };
    assert!(fails_in_time(&url, Duration::from_secs(5), waits).is_retryable());
    drop(killer.join());
}

#[test]
#[ignore = "needs Consul"]
fn wait_goes_on_with_a_server_that_counts_from_the_start() {
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
    server.restart_empty();
    let mut listing = listing.unwrap();
    assert_eq!(listing.entries.len(), 50);
    run(async {
        // The keys of the old server are gone, and a wait with the old cursor shows it.
        let started = Instant::now();
        while !listing.entries.is_empty() {
            listing = store.next_listing("nodes/", &listing.cursor, wait).await.unwrap();
        }
        assert!(started.elapsed() < wait * 3, "{:?}", started.elapsed());
        // From then on changes end a wait at once.
        for n in 0..3 {
            create(&server.store("weft"), &format!("nodes/new{n}"), "1").await;
            let started = Instant::now();
            while listing.entries.len() < n + 1 {
                listing = store.next_listing("nodes/", &listing.cursor, LONG).await.unwrap();
            }
            assert!(started.elapsed() < wait, "{:?}", started.elapsed());
        }
    });
}
