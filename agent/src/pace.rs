//! The rate of work that a timer starts.
//!
//! What a timer does for each network costs more the more networks there are: a check of devices
//! lists all links. So intervals grow with the number of networks, and a node does no more such
//! work in a second than a node of few networks.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Agent;

/// Passes of one kind that timers start on a node: one in this time.
const ONE_IN: Duration = Duration::from_secs(3);

/// Heavy passes at the same time.
const HEAVY: usize = 4;

/// Time after which a heavy pass starts although others are under way: one of those may be stuck.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The interval of a timer of each network: `least`, or more where there are many networks. A
/// quarter of it is random, so that the timers of networks that were found together do not
/// coincide.
pub fn interval(agent: &Agent, least: Duration) -> Duration {
    let networks = agent.networks.borrow().len();
    let random = agent.host.cluster().environment().random();
    spread(least, networks, random)
}

fn spread(least: Duration, networks: usize, random: u64) -> Duration {
    let networks = u32::try_from(networks).unwrap_or(u32::MAX);
    let interval = ONE_IN.saturating_mul(networks).max(least);
    let share = u32::try_from(random % 256).unwrap_or_default();
    interval.saturating_sub(interval / 4 / 256 * share)
}

/// Passes that take much memory or processor time, a few at once.
#[derive(Debug)]
pub struct Heavy(Semaphore);

impl Default for Heavy {
    fn default() -> Self {
        Self(Semaphore::new(HEAVY))
    }
}

impl Heavy {
    /// Waits until a heavy pass may start, ten seconds at most. The pass is under way until the
    /// permit is dropped; there is none if those ten seconds have passed.
    pub async fn start(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(LONGEST_WAIT, self.0.acquire()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_grows_with_networks_and_has_a_random_quarter() {
        let least = Duration::from_secs(30);
        for (networks, longest) in [(0, 30), (1, 30), (10, 30), (50, 150), (1000, 3000)] {
            let longest = Duration::from_secs(longest);
            assert_eq!(spread(least, networks, 0), longest, "{networks}");
            let shortest = spread(least, networks, 255);
            assert!(shortest < longest && shortest > longest * 3 / 4, "{networks}: {shortest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stuck_passes_hold_up_others_for_ten_seconds_only() {
        let heavy = Heavy::default();
        let mut stuck = vec![];
        for _ in 0..HEAVY {
            stuck.push(heavy.start().await.unwrap());
        }
        let before = tokio::time::Instant::now();
        assert!(heavy.start().await.is_none());
        assert_eq!(before.elapsed(), LONGEST_WAIT);
        stuck.pop();
        assert!(heavy.start().await.is_some());
    }
}
