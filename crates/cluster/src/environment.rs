//! Time and chance, as the protocols between nodes know them.
//!
//! Everything else that a protocol depends on is the cluster store and the node's own files. With
//! these two in one place, a simulator can run the very code of agent and plugins, with time and
//! chance of its own, and repeat any run exactly.

use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use weft_files::lock::Lockable;
use weft_files::{FileError, FileLock};

/// The source of time and random numbers.
#[async_trait]
pub trait Environment: Send + Sync {
    /// The time since some moment in the past. It never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, duration: Duration);

    /// A random number.
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
impl Environment for Real {
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

/// Pause between two attempts at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(3);

/// Waits for the advisory lock on `path`, creating the file if it is missing; `None` if another
/// process held it for all of `limit`. For locks that may be held across I/O to the cluster store:
/// the thread goes on with other tasks meanwhile.
pub async fn wait_for_lock(
    environment: &dyn Environment,
    path: &Path,
    limit: Duration,
) -> Result<Option<FileLock>, FileError> {
    let mut file = Lockable::open(path)?;
    let start = environment.now();
    loop {
        file = match file.try_lock()? {
            Ok(lock) => return Ok(Some(lock)),
            Err(_) if environment.now().saturating_sub(start) > limit => return Ok(None),
            Err(file) => file,
        };
        environment.sleep(LOCK_POLL).await;
    }
}
