//! News of containers that come and go on this node.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use log::warn;
use weft_ledger::layout::NetworkDir;
use weft_model::NetworkName;

/// Containers come in bursts; what comes within this time is one piece of news.
const BURST: Duration = Duration::from_millis(100);

/// A watch on the reservations of one network.
pub struct Reservations(Option<EventStream<Vec<u8>>>);

impl Reservations {
    /// Starts to watch. Where that fails there are no news, and the agent looks on its own.
    pub fn watch(data_dir: &Path, network: &NetworkName) -> Self {
        let dir = NetworkDir::new(data_dir, network).reservations();
        let open = || {
            std::fs::create_dir_all(&dir)?;
            let inotify = Inotify::init()?;
            let mask = WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
            inotify.watches().add(&dir, mask)?;
            inotify.into_event_stream(vec![0; 4096])
        };
        match open() {
            Ok(news) => Self(Some(news)),
            Err(error) => {
                warn!("network {network}: no news of {} ({error})", dir.display());
                Self(None)
            }
        }
    }

    /// Waits until a reservation has come or gone.
    pub async fn changed(&mut self) {
        let Some(news) = &mut self.0 else { return std::future::pending().await };
        if !matches!(news.next().await, Some(Ok(_))) {
            self.0 = None;
            return;
        }
        let burst = async { while matches!(news.next().await, Some(Ok(_))) {} };
        let _ = tokio::time::timeout(BURST, burst).await;
    }
}
