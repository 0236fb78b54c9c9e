//! Folders: keys that end in `/`, which Consul's UI shows as such.
//!
//! Consul answers a blocking query on a prefix without any key after every write nearby: its index
//! is then that of all keys, and its watch that of the closest node of the tree (measured with
//! 1.8.7: 129 answers to 4 s of writes under a sibling, instead of 4). A thousand agents that wait
//! on the same few empty prefixes would ask again with every change of the cluster. With one key
//! under the prefix it blocks as it should. So a wait that finds nothing creates the folder, if the
//! token may. No key of weft ends in `/`, and folders are left out of lists.

use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Method, StatusCode};

use super::ConsulStore;
use super::http::Call;
use crate::StoreError;

/// Remembers that the token may not create folders, so that a wait does not try each time.
#[derive(Debug, Default)]
pub(super) struct Folders {
    are_denied: AtomicBool,
}

/// Returns whether `key` is a folder.
pub(super) fn is_folder(key: &str) -> bool {
    key.ends_with('/')
}

impl ConsulStore {
    /// Creates the folder of `prefix` unless it exists. A token without the right is no error:
    /// waits return more often then, and are right all the same.
    pub(super) async fn create_folder(&self, prefix: &str) -> Result<(), StoreError> {
        if self.folders.are_denied.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = format!("{}?cas=0", self.path(prefix));
        let reply = self.client.send(Call::new(Method::PUT, &path)).await?;
        if reply.status == StatusCode::FORBIDDEN {
            self.folders.are_denied.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
