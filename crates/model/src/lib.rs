//! The values weft reasons about, and their arithmetic. No I/O happens here.
//!
//! - [`names`]: names of networks, nodes and attachments, checked once when they enter.
//! - [`vni`], [`mac`], [`subnet`]: numbers of the data plane.
//! - [`numbers`]: numbers that pools and blocks are counted in.
//! - [`pool`]: subnets, and how one *host number* gives an address in each family.
//! - [`block`]: how a pool is cut into blocks, the unit that nodes own.
//! - [`network`], [`node`], [`endpoint`], [`loan`], [`sticky`], [`usage`]: the records that every
//!   node reads in the cluster store.
//! - [`network_id`]: networks that have or had one name, told apart.
//! - [`spec`]: what a user asks of a network.
//! - [`device`]: names of the interfaces that weft makes on a node.
//! - [`mtu`]: what encapsulation costs.
//!
//! Everything that can be wrong is refused by a constructor, so code above never meets half-valid
//! values. Records that come from the store are decoded into unchecked serde structs first and
//! become domain values through `TryFrom`.

pub mod block;
pub mod device;
pub mod endpoint;
pub mod hash;
mod hex;
pub mod loan;
pub mod mac;
pub mod mtu;
pub mod names;
pub mod network;
pub mod network_id;
pub mod node;
pub mod numbers;
pub mod pool;
pub mod spec;
pub mod sticky;
pub mod subnet;
pub mod usage;
pub mod vni;

pub use block::Block;
pub use endpoint::Endpoint;
pub use loan::{LoanAnswer, LoanId, LoanRecord};
pub use mac::MacAddr;
pub use names::{Attachment, ContainerId, IfName, NetworkName, NodeName, PreparedId};
pub use network::{Mode, Network};
pub use network_id::{Incarnation, NetworkId};
pub use node::NodeRecord;
pub use numbers::{BlockBits, HostNumber, PoolIndex};
pub use pool::{Addresses, Pool};
pub use spec::NetworkSpec;
pub use sticky::{Sticky, StickyId, StickyRecord};
pub use subnet::Subnet;
pub use usage::{BlockCounts, Usage, UsageRecord};
pub use vni::Vni;

/// A value that weft refuses, with the reason in words that name the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A name breaks the rules of its kind.
    #[error("{kind} {value:?} is not valid: {reason}")]
    Name {
        /// The kind of name: "network name", "node name", ...
        kind: &'static str,
        /// The value as received.
        value: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A key of a network definition has a value that cannot work.
    #[error("{key} {value}: {reason}")]
    Key {
        /// The key as a user writes it (`subnet`, `gateway`, `rangeStart`, `vni`, ...).
        key: &'static str,
        /// The value as received.
        value: String,
        /// Why it cannot work, and what would.
        reason: String,
    },
}

impl ModelError {
    pub(crate) fn key(
        key: &'static str,
        value: impl std::fmt::Display,
        reason: impl Into<String>,
    ) -> Self {
        Self::Key { key, value: value.to_string(), reason: reason.into() }
    }
}
