//! Delays between retries.

use std::time::Duration;

/// The first delay, on average.
const FIRST: Duration = Duration::from_millis(100);

/// The longest delay, on average.
const LONGEST: Duration = Duration::from_secs(10);

/// Delays that double, each random between half and one and a half of its nominal length, so that
/// the agents of a cluster do not all return to a store at the same moment.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// A back-off without failures so far.
    pub fn new() -> Self {
        Self { failures: 0, random: fastrand::Rng::new() }
    }

    /// Delays that are the same in each run, for tests and simulations.
    pub fn seeded(seed: u64) -> Self {
        Self { failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// Counts a failure, and returns the delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let nominal = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        nominal.mul_f64(0.5 + self.random.f64())
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_bounds_and_start_over() {
        let mut backoff = Backoff::seeded(1);
        assert!(backoff.next_delay() <= FIRST * 3 / 2);
        let delays: Vec<Duration> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= LONGEST * 3 / 2));
        assert!(delays[30..].iter().all(|delay| *delay >= LONGEST / 2));
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST * 3 / 2);
    }
}
