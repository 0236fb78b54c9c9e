//! Work that may block, away from the thread that polls the agent's tasks.
//!
//! The node's files are locked for microseconds; a process that is stopped while it holds such a
//! lock holds up everyone who waits for it. The kernel and `nft` may take their time too. So each
//! pass of a network runs on one of tokio's threads for blocking work, and one that is stuck holds
//! up its own network only.

use std::time::Duration;

use log::warn;
use tokio::runtime::Handle;

/// Time after which a pass that does not end is reported.
const SLOW: Duration = Duration::from_secs(30);

/// Runs `work` on a thread of its own, and reports under the name `what` if it takes long. A panic
/// of `work` goes on in the caller.
pub async fn run<T: Send + 'static>(
    what: impl Fn() -> String,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let runtime = Handle::current();
    let mut task = tokio::task::spawn_blocking(move || runtime.block_on(work));
    loop {
        match tokio::time::timeout(SLOW, &mut task).await {
            Ok(Ok(result)) => return result,
            Ok(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => warn!("{} takes longer than {} s", what(), SLOW.as_secs()),
        }
    }
}
