//! Time and chance, as the protocols between nodes know them.
//!
//! Everything else that a protocol depends on is the cluster store and the node's own files. With
//! these two in one place, a simulator can run the very code of agent and plugins, with time and
//! chance of its own, and repeat any run exactly.

use std::time::{Duration, Instant};

use async_trait::async_trait;

/// Where time and chance come from.
#[async_trait]
pub trait Surroundings: Send + Sync {
    /// The time since some moment in the past. It never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// A number by chance.
    fn random(&self) -> u64;
}

/// The machine's clock, tokio's timer, and a generator seeded by the operating system.
#[derive(Debug)]
pub struct Real(Instant);

impl Default for Real {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[async_trait]
impl Surroundings for Real {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
