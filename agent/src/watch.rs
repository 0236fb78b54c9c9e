//! Prefixes of the cluster store, as values that can be waited for.
//!
//! A watch holds the last listing that the store gave. While the store cannot be reached it goes on
//! holding that one: a store that is down is no reason to forget a peer. After any error the prefix
//! is listed anew from the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use tokio::sync::watch;
use tokio::time::Instant;
use weft_store::{Backoff, Entry, Store, StoreError, typed};

/// How long one question to the store may stay open.
const WAIT: Duration = Duration::from_secs(60);

/// The least time between two answers. A store in which much changes would otherwise have the agent
/// do nothing but read, and so would one that does not wait before it answers.
const PACE: Duration = Duration::from_millis(50);

/// What the store held under a prefix when it was last asked; `None` until it answered for the
/// first time.
pub type Watched = watch::Receiver<Option<Arc<Vec<Entry>>>>;

/// Waits until a watch shows something else than it last did. One that has ended never does.
pub async fn changed(watched: &mut Watched) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Starts to watch `prefix`. The watch ends when the last receiver is dropped.
pub fn prefix(store: Arc<dyn Store>, prefix: String) -> Watched {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut backoff = Backoff::new();
        let mut failing = false;
        while !sender.is_closed() {
            let error = tokio::select! {
                error = follow(&*store, &prefix, &sender, &mut backoff, &mut failing) => error,
                () = sender.closed() => return,
            };
            if !failing {
                warn!("watching {prefix}: {error}; keeping what was last seen");
                failing = true;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    });
    receiver
}

/// Lists, then follows, until the store fails.
async fn follow(
    store: &dyn Store,
    prefix: &str,
    sender: &watch::Sender<Option<Arc<Vec<Entry>>>>,
    backoff: &mut Backoff,
    failing: &mut bool,
) -> StoreError {
    let mut listing = match store.list(prefix).await {
        Ok(listing) => listing,
        Err(error) => return error,
    };
    loop {
        let answered = Instant::now();
        backoff.reset();
        if std::mem::take(failing) {
            info!("watching {prefix}: the {} answers again", store.describe());
        }
        let entries = Arc::new(listing.entries);
        sender.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&entries);
            *last = Some(entries);
            changed
        });
        tokio::time::sleep_until(answered + PACE).await;
        listing = match store.watch(prefix, &listing.cursor, WAIT).await {
            Ok(listing) => listing,
            Err(error) => return error,
        };
    }
}

/// Decodes entries by key. One that cannot be read is reported and left out.
pub fn read<K: Ord, R: serde::de::DeserializeOwned, V>(
    entries: &[Entry],
    key: impl Fn(&str) -> Option<K>,
    value: impl Fn(R, &Entry) -> V,
) -> BTreeMap<K, V> {
    let decode = |entry: &Entry| match typed::decode::<R>(entry) {
        Ok(record) => Some((key(&entry.key)?, value(record, entry))),
        Err(error) => {
            warn!("{error}");
            None
        }
    };
    entries.iter().filter_map(decode).collect()
}
