//! Reservations: which attachment holds which host number.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_files::Inode;
pub use weft_model::Sticky;
use weft_model::{ContainerId, HostNumber, IfName, LoanId, NodeName, PoolIndex};

/// File names longer than this are shortened and made unique by a hash (`NAME_MAX` is 255).
const LONGEST_FILE_NAME: usize = 240;

/// With what the names of files begin that stand for lent addresses.
pub(crate) const LENT: &str = "@lent-";

/// With what the names of files begin that stand for addresses kept for identities.
pub(crate) const KEPT: &str = "@kept-";

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    /// An interface of a container.
    #[serde(rename_all = "camelCase")]
    Attachment {
        /// The sandbox.
        container_id: ContainerId,
        /// Its interface.
        ifname: IfName,
    },
    /// The node itself, on its bridge.
    Node,
    /// Another node: the address lives there for now.
    #[serde(rename_all = "camelCase")]
    Lent {
        /// The pool of the lent address.
        pool: PoolIndex,
        /// Its host number.
        host: HostNumber,
        /// Where it lives.
        node: NodeName,
        /// The loan; absent where the address lives there by another right.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loan: Option<LoanId>,
        /// The identity that it was lent for, if it is to keep its address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sticky: Option<Sticky>,
    },
    /// Nobody at the moment: the address is kept for an identity.
    #[serde(rename_all = "camelCase")]
    Kept {
        /// The identity.
        sticky: Sticky,
        /// Until when, in seconds since 1970.
        until: u64,
    },
}

impl Holder {
    /// The name of the file that stands for this holder. `@` cannot occur in a container id, so
    /// two holders never share a name.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::Node => return "@node".to_owned(),
            Self::Lent { pool, host, .. } => return format!("{LENT}{pool}-{host}"),
            Self::Kept { sticky, .. } => return format!("{KEPT}{}", sticky.id()),
            Self::Attachment { container_id, ifname } => format!("{container_id}@{ifname}"),
        };
        if name.len() <= LONGEST_FILE_NAME {
            return name;
        }
        let keep = name.char_indices().map(|(i, _)| i).take_while(|i| *i <= 200).last();
        format!("{}@{:016x}", &name[..keep.unwrap_or(0)], hash(&name))
    }

    /// A number that stands for the holder in the index.
    pub(crate) fn hash(&self) -> u64 {
        hash(&self.file_name())
    }
}

/// 64-bit FNV-1a of a file name.
pub(crate) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node itself"),
            Self::Lent { node, .. } => write!(f, "node {node}, to which it was lent"),
            Self::Kept { sticky, .. } => write!(f, "{}, for which it is kept", sticky.identity),
            Self::Attachment { container_id, ifname } => write!(f, "{container_id}/{ifname}"),
        }
    }
}

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
    /// Who holds it.
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
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// Where a borrowed address comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    /// The loan.
    pub id: LoanId,
    /// The owner of the block.
    pub lender: NodeName,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(id: &str, ifname: &str) -> Holder {
        Holder::Attachment {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        }
    }

    #[test]
    fn every_holder_has_a_file_name_of_its_own() {
        assert_eq!(attachment("c1", "eth0").file_name(), "c1@eth0");
        assert_eq!(Holder::Node.file_name(), "@node");
        let long = "x".repeat(300);
        let (a, b) = (attachment(&long, "eth0").file_name(), attachment(&long, "eth1").file_name());
        assert!(a.len() < 255 && b.len() < 255);
        assert_ne!(a, b);
        // An interface name may hold any character but '/', ':' and blanks, '@' included.
        assert_ne!(attachment("c1", "@x").file_name(), attachment("c1", "x").file_name());
    }
}
