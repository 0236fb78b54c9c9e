//! The contract of the store, run against each: the embedded one, and Consul.
//!
//! The tests with Consul are ignored by default (`cargo test -- --ignored`); they run the program
//! that `WEFT_TEST_CONSUL` names. Failures that only a server over a network has stand in
//! `outages`, and what a token may not do in `access`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod access;
mod leases;
mod outages;
mod server;
mod transactions;
mod values;
mod waits;

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use server::Consul;
use weft_store::{Entry, Expected, LocalStore, Store};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);

/// The shortest lease that every store here grants.
const TTL: Duration = Duration::from_secs(1);

/// An empty store that can be opened several times, as several processes do.
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
    ($($module:ident::$name:ident)*) => {
        mod local {
            $(#[test] fn $name() { crate::run(crate::$module::$name(&crate::Place::local())); })*
        }
        mod consul {
            $(#[test] #[ignore = "needs Consul"]
            fn $name() { crate::run(crate::$module::$name(&crate::Place::consul())); })*
        }
    };
}

contract! {
    values::empty_store_has_no_keys
    values::returns_written_values
    values::lists_all_keys_of_a_prefix_in_order_and_no_other
    values::refuses_invalid_keys_and_prefixes
    values::describes_itself_and_passes_its_check

    transactions::creates_a_key_once
    transactions::updates_only_the_latest_revision
    transactions::recreated_key_does_not_pass_for_the_old_one
    transactions::transaction_does_everything
    transactions::conflict_names_the_key_and_changes_nothing
    transactions::conflict_names_the_first_of_several_keys
    transactions::refuses_a_key_that_occurs_twice
    transactions::refuses_too_many_operations_and_too_many_bytes
    transactions::takes_the_largest_transaction
    transactions::concurrent_increments_are_never_lost
    transactions::revision_keys_change_with_every_touch

    waits::wait_prefix_wakes_on_each_kind_of_change
    waits::wait_key_wakes_on_each_kind_of_change
    waits::wait_returns_in_time_when_nothing_changes
    waits::wait_misses_nothing_between_two_calls
    waits::wait_sees_the_last_of_many_changes
    waits::wait_key_blocks_in_spite_of_a_sibling
    waits::wait_key_ignores_changes_of_siblings
    waits::wait_prefix_ignores_other_prefixes
    waits::wait_on_an_empty_prefix_ignores_other_prefixes
    waits::state_that_is_sent_along_is_the_state

    leases::lease_lives_until_it_is_revoked
    leases::put_leased_replaces_any_key_and_binds_it
    leases::revoked_lease_deletes_its_keys_and_no_other
    leases::lease_that_is_not_renewed_ends_and_deletes_its_keys
    leases::end_of_a_lease_spares_a_key_that_another_took_over
    leases::expiry_of_a_lease_spares_a_key_that_another_took_over
    leases::ended_lease_writes_nothing
    leases::leased_key_that_returns_has_another_revision
    leases::wait_wakes_when_a_lease_is_revoked
    leases::wait_wakes_when_a_lease_expires
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG * 2, test).await }).expect("it hangs");
}

fn json(text: &str) -> Vec<u8> {
    format!("{text:?}").into_bytes()
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn create(store: &dyn Store, key: &str, value: &str) -> Entry {
    assert!(store.compare_and_set(key, Expected::Absent, json(value)).await.unwrap(), "{key}");
    entry(store, key).await
}

async fn find(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key).await.unwrap().entry
}

async fn entry(store: &dyn Store, key: &str) -> Entry {
    find(store, key).await.unwrap_or_else(|| panic!("{key} is missing"))
}

/// Changes the store from another thread, after a while.
fn later(place: &Place, change: impl AsyncFnOnce(Box<dyn Store>) + Send + 'static) {
    let store = place.open();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        run(change(store));
    });
}
