//! Identities of files.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Device and inode number of a file: the same for as long as the file lives, by whatever path. For
/// a network namespace it identifies the namespace (`nsfs`); the kernel reuses the number of one
/// that has ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Inode(u64, u64);

impl Inode {
    /// Identity by device and inode number.
    pub const fn new(device: u64, inode: u64) -> Self {
        Self(device, inode)
    }

    /// Identity of the file that `path` leads to; `None` if it cannot be read.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::from)
    }

    /// Identity of an open file.
    pub fn of(file: &File) -> std::io::Result<Self> {
        file.metadata().as_ref().map(Self::from).map_err(|error| error.kind().into())
    }
}

impl From<&Metadata> for Inode {
    fn from(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}
