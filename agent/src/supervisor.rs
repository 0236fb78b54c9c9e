//! One task for each network, started again if it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::error;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use weft_model::NetworkId;

/// Delay before a task that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(2);

/// Delay before a task that ended is started again, if its network is still wanted then.
const AFTER_END: Duration = Duration::from_millis(50);

/// Tasks by network.
#[derive(Default)]
pub struct Supervisor {
    tasks: JoinSet<()>,
    running: BTreeMap<NetworkId, AbortHandle>,
}

impl Supervisor {
    /// Starts a task for each of `wanted` that has none, and ends the tasks of all other networks.
    pub fn set<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        wanted: &BTreeSet<NetworkId>,
        start: impl Fn(&NetworkId) -> F,
    ) {
        self.running.retain(|name, task| {
            let keep = wanted.contains(name);
            if !keep {
                task.abort();
            }
            keep
        });
        for name in wanted {
            if !self.running.contains_key(name) {
                self.running.insert(name.clone(), self.tasks.spawn(start(name)));
            }
        }
    }

    /// Waits until a task has ended by itself; the network has none then. Never resolves while
    /// there are no tasks.
    pub async fn ended(&mut self) {
        let ended = loop {
            match self.tasks.join_next_with_id().await {
                None => std::future::pending::<()>().await,
                Some(Err(error)) if error.is_cancelled() => {}
                Some(ended) => break ended,
            }
        };
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.running.retain(|_, task| task.id() != id);
        let delay = match ended {
            Ok(_) => AFTER_END,
            Err(error) => {
                let seconds = AFTER_PANIC.as_secs();
                error!("a task failed and will be started again in {seconds} s: {error}");
                AFTER_PANIC
            }
        };
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn names(names: &[&str]) -> BTreeSet<NetworkId> {
        names.iter().map(|name| format!("{name}@00000000").parse().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn runs_one_task_for_each_network_and_restarts_what_panicked() {
        let started = Arc::new(AtomicUsize::new(0));
        let start = |id: &NetworkId| {
            let (name, started) = (id.name.clone(), started.clone());
            async move {
                let before = started.fetch_add(1, Ordering::SeqCst);
                assert!(name.as_str() != "bad" || before >= 2, "as planned");
                std::future::pending::<()>().await;
            }
        };
        let mut supervisor = Supervisor::default();
        supervisor.set(&names(&["bad", "good"]), start);
        supervisor.ended().await;
        supervisor.set(&names(&["bad", "good"]), start);
        tokio::task::yield_now().await;
        assert_eq!(started.load(Ordering::SeqCst), 3, "the good one is not started twice");
        supervisor.set(&names(&[]), start);
        let ended = tokio::time::timeout(Duration::from_secs(60), supervisor.ended()).await;
        assert!(ended.is_err(), "an aborted task is no ended one");
    }
}
