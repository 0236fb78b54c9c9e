//! Events of containers that come and go on this node.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use log::warn;
use weft_ledger::layout::NetworkDir;
use weft_model::NetworkName;

/// Containers come in bursts; what comes within this time is one event.
const BURST: Duration = Duration::from_millis(100);

/// A watch on the reservations of one network.
pub struct Reservations(Option<EventStream<Vec<u8>>>);

impl Reservations {
    /// Starts to watch. Where that fails there are no events, and timers cover for them.
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
            Ok(events) => Self(Some(events)),
            Err(error) => {
                warn!("network {network}: no events of {} ({error})", dir.display());
                Self(None)
            }
        }
    }

    /// Waits until a reservation has come or gone.
    pub async fn changed(&mut self) {
        let Some(events) = &mut self.0 else { return std::future::pending().await };
        if !matches!(events.next().await, Some(Ok(_))) {
            self.0 = None;
            return;
        }
        let burst = async { while matches!(events.next().await, Some(Ok(_))) {} };
        let _ = tokio::time::timeout(BURST, burst).await;
    }
}
