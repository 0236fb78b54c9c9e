//! What the kernel makes of what weft tells it: every test in network namespaces of its own.
//!
//! They need root and are ignored unless asked for (`cargo test -- --ignored`). The kernel is looked at
//! with the system's own tools, not with the code under test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod attach;
mod dumps;
mod firewall;
mod ground;
mod peers;
mod segment;
mod underlay;
