//! Tests against the kernel, each in network namespaces of its own.
//!
//! They need root and are ignored unless asked for (`cargo test -- --ignored`). The kernel is
//! looked at with the system's own tools, not with the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod attach;
mod deletion;
mod dumps;
mod entries;
mod events;
mod firewall;
mod ground;
mod netns;
mod peers;
mod peers_at_scale;
mod segment;
mod underlay;
