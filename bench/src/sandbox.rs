//! Containers, as far as a CNI plugin sees them: network namespaces with a path.

use std::path::PathBuf;

use anyhow::Result;
use weft_datapath::netns::{Entry, Netns};

use crate::shell::run;

/// A network namespace below `/run/netns`. It goes when this is dropped.
pub(crate) struct Sandbox {
    /// Name of the namespace, and container id.
    pub name: String,
    /// Path that it is mounted at.
    pub path: PathBuf,
}

impl Sandbox {
    /// Makes an empty network namespace.
    pub(crate) fn create(name: &str) -> Result<Self> {
        run(&format!("ip netns add {name}"))?;
        Ok(Self { name: name.to_owned(), path: PathBuf::from("/run/netns").join(name) })
    }

    /// Runs `work` on a thread inside the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        Netns::open(&self.path)?.run(Entry::NewThread, work)?
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The whole mount namespace goes after this program; what can't be removed now goes then.
        let _ = run(&format!("ip netns delete {}", self.name));
    }
}
