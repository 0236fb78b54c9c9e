//! Reservations: which holder has which host number.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_files::Inode;
pub use weft_model::Sticky;
use weft_model::{HostNumber, LoanId, NodeName, PoolIndex, PreparedId};

use crate::clock::now;
pub use crate::holder::{Holder, HolderKey};

/// The network namespace that an attachment was made for. A path alone proves little: it may come
/// to name another namespace once the first is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// Device and inode of the namespace behind the path, if the path could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Inode>,
}

impl Sandbox {
    /// Notes the namespace behind `netns` as it is now.
    pub fn observe(netns: &Path) -> Self {
        Self { netns: netns.to_owned(), identity: Inode::at(netns) }
    }
}

/// One host number held by one holder: the content of a reservation file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// Its holder.
    pub holder: Holder,
    /// The pool.
    pub pool: PoolIndex,
    /// The host number.
    pub host: HostNumber,
    /// The addresses that pool and host number give, for people who read the file.
    pub addresses: Vec<IpAddr>,
    /// The sandbox, if the holder is an attachment and its namespace was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// The loan, if the address was borrowed from another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loan: Option<Loan>,
    /// The identity that keeps the address when the holder goes, if the holder came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// The prepared reservation that this one was settled from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<PreparedId>,
    /// Time of its making, in seconds since 1970.
    pub created: u64,
}

impl Reservation {
    /// A reservation that is made now and names nothing but holder and address.
    pub(crate) fn new(
        holder: Holder,
        (pool, host): (PoolIndex, HostNumber),
        addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            holder,
            pool,
            host,
            addresses,
            sandbox: None,
            loan: None,
            sticky: None,
            settled: None,
            created: now(),
        }
    }

    /// Returns whether the time is over for which the address was kept or reserved. Other holders
    /// have it until it is released.
    pub fn is_expired(&self) -> bool {
        match self.holder {
            Holder::Kept { until: end, .. } | Holder::Prepared { expires: end, .. } => end <= now(),
            Holder::Attachment { .. } | Holder::Node | Holder::Lent { .. } => false,
        }
    }

    /// Time since it was made; none if the clock was set back.
    pub fn age(&self) -> Duration {
        Duration::from_secs(now().saturating_sub(self.created))
    }

    /// The addresses, for people.
    pub fn shown(&self) -> String {
        if self.addresses.is_empty() {
            return format!("host {} of pool {}", self.host, self.pool);
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.join(" with ")
    }
}

/// Source of a borrowed address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    /// The loan.
    pub id: LoanId,
    /// The owner of the block.
    pub lender: NodeName,
}
