//! Which networks this host has: those that a plugin has made devices for.
//!
//! The plugin notes what it made in the data directory, and a look at the directory tells all. The
//! kernel says when to look (inotify), and a slow clock in case it did not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask, Watches};
use log::warn;
use weft_files::create_private_dir;
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::NetworkName;
use weft_wiring::SegmentState;

/// How often to look without being told.
const SLOW: Duration = Duration::from_secs(10);

/// The networks of this host, as the data directory shows them.
pub struct Networks {
    data_dir: PathBuf,
    watches: Watches,
    news: EventStream<Vec<u8>>,
}

impl Networks {
    /// Starts to watch `data_dir`.
    pub fn watch(data_dir: &Path) -> anyhow::Result<Self> {
        let dir = networks_dir(data_dir);
        create_private_dir(&dir)?;
        let inotify = Inotify::init().context("ask the kernel for file notifications")?;
        let mut watches = inotify.watches();
        watches
            .add(&dir, WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVED_FROM)
            .with_context(|| format!("watch {}", dir.display()))?;
        let news = inotify.into_event_stream(vec![0; 4096])?;
        Ok(Self { data_dir: data_dir.to_owned(), watches, news })
    }

    /// The networks that are here now.
    pub fn list(&mut self) -> BTreeSet<NetworkName> {
        let mut here = directories(&self.data_dir);
        for name in &here {
            let dir = NetworkDir::new(&self.data_dir, name);
            // Watching a directory twice is the same watch; one that is gone is no loss.
            let _ = self.watches.add(dir.root(), WatchMask::MOVED_TO | WatchMask::DELETE);
        }
        here.retain(|name| SegmentState::read(&self.data_dir, name).is_some());
        here
    }

    /// Waits until it is worth looking again.
    pub async fn changed(&mut self) {
        let told = async {
            // Every kind of failure here ends in the slow clock.
            match self.news.next().await {
                Some(Ok(_)) => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = tokio::time::sleep(SLOW) => {}
        }
    }
}

/// The networks that have a directory, but of which nothing is noted: those that a plugin is just
/// making, and those whose removal was cut short.
pub fn without_note(data_dir: &Path) -> Vec<NetworkName> {
    let mut names: Vec<NetworkName> = directories(data_dir).into_iter().collect();
    names.retain(|name| SegmentState::read(data_dir, name).is_none());
    names
}

/// The networks that have a directory.
fn directories(data_dir: &Path) -> BTreeSet<NetworkName> {
    let dir = networks_dir(data_dir);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            warn!("read {}: {error}", dir.display());
            return BTreeSet::new();
        }
    };
    let name = |entry: std::fs::DirEntry| NetworkName::new(entry.file_name().to_str()?).ok();
    entries.flatten().filter_map(name).collect()
}
