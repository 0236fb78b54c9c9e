//! The agent's tasks.

pub mod devices;
pub mod discovery;
pub mod drain;
pub mod heartbeat;
pub mod holdings;
pub mod link_events;
pub mod networks;
pub mod ownership;
pub mod peers;
pub mod recovery;
pub mod sweep;
pub mod underlay;
pub mod usage;
