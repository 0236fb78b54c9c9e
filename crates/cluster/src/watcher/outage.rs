//! Log lines of watches that fail. An outage of the store hits all of them at once and is one
//! event: it is logged once at its beginning and once at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::{debug, info, warn};
use weft_store::StoreError;

/// Count of the watches that the store does not answer.
#[derive(Debug, Default)]
pub(super) struct Outage {
    unanswered: AtomicUsize,
}

impl Outage {
    /// Counts a watch that is no longer answered. Returns whether it is the first.
    fn enter(&self) -> bool {
        self.unanswered.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Takes a watch out of the count. Returns whether it was the last.
    fn leave(&self) -> bool {
        self.unanswered.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// State of one watch, as it was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Answered,
    /// The store does not answer.
    Unanswered,
    /// The store refuses this prefix, or answers what cannot be read.
    Refused,
}

/// The fault of one watch.
#[derive(Debug)]
pub(super) struct Fault {
    outage: Arc<Outage>,
    prefix: String,
    state: State,
}

impl Fault {
    pub(super) fn new(outage: Arc<Outage>, prefix: String) -> Self {
        Self { outage, prefix, state: State::Answered }
    }

    /// Notes that the watch has failed.
    pub(super) fn begins(&mut self, error: &StoreError) {
        let state = if error.is_retryable() { State::Unanswered } else { State::Refused };
        let before = std::mem::replace(&mut self.state, state);
        if before == state {
            return;
        }
        if before == State::Unanswered {
            self.outage.leave();
        }
        let prefix = &self.prefix;
        if state == State::Refused {
            warn!("watching {prefix}: {error}; keeping the last known state, will retry");
        } else if self.outage.enter() {
            warn!("{error}; keeping the last known state, will retry until it answers");
        } else {
            debug!("watching {prefix}: {error}");
        }
    }

    /// Notes that the watch was answered by `store`.
    pub(super) fn ends(&mut self, store: &str) {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Refused => info!("watching {}: the {store} answers again", self.prefix),
            State::Unanswered if self.outage.leave() => info!("the {store} answers again"),
            State::Answered | State::Unanswered => {}
        }
    }
}

/// A watch that ends has no part in the outage any more.
impl Drop for Fault {
    fn drop(&mut self) {
        if self.state == State::Unanswered {
            self.outage.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered() -> StoreError {
        StoreError::Unreachable { store: "Consul".into(), cause: "no connection".into() }
    }

    fn refused() -> StoreError {
        StoreError::Unexpected { store: "Consul".into(), answer: "404".into() }
    }

    #[test]
    fn an_outage_begins_with_the_first_watch_and_ends_with_the_last() {
        let outage = Outage::default();
        assert!(outage.enter());
        assert!(!outage.enter());
        assert!(!outage.leave());
        assert!(outage.leave());
        assert!(outage.enter(), "another one");
    }

    #[test]
    fn a_watch_counts_once_and_only_while_it_is_not_answered() {
        let outage = Arc::new(Outage::default());
        let unanswered_now = || outage.unanswered.load(Ordering::Relaxed);
        let mut watches = ["nodes/", "networks/"].map(|p| Fault::new(outage.clone(), p.into()));
        for _ in 0..3 {
            for watch in &mut watches {
                watch.begins(&unanswered());
            }
        }
        assert_eq!(unanswered_now(), 2);
        watches[0].begins(&refused());
        assert_eq!(unanswered_now(), 1);
        watches[0].ends("Consul");
        watches[1].ends("Consul");
        watches[1].ends("Consul");
        assert_eq!(unanswered_now(), 0);
        watches[1].begins(&unanswered());
        drop(watches);
        assert_eq!(unanswered_now(), 0);
    }
}
