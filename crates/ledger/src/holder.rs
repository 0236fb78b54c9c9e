//! Holders of addresses, and the names of the files that stand for them.
//!
//! A reservation is a file, and its name is the holder's identity: two holders never share one.
//! This is the only place that knows how such names are made and read.

use std::fmt;

use serde::{Deserialize, Serialize};
use weft_model::hash::fnv1a;
use weft_model::{
    Attachment, ContainerId, HostNumber, IfName, LoanId, NetworkName, NodeName, PoolIndex,
    PreparedId, Sticky, StickyId,
};

/// File names longer than this are shortened and made unique by a hash (`NAME_MAX` is 255).
const LONGEST_FILE_NAME: usize = 240;

const NODE: &str = "@node";
const LENT: &str = "@lent-";
const KEPT: &str = "@kept-";
const PREPARED: &str = "@prepared-";

/// Holder of an address.
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
        /// The node that has it.
        node: NodeName,
        /// The loan; absent where the address lives there by another right.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loan: Option<LoanId>,
        /// The identity that it was lent for, if it is to keep its address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sticky: Option<Sticky>,
    },
    /// An identity whose container is gone: the address is kept for it.
    #[serde(rename_all = "camelCase")]
    Kept {
        /// The identity.
        sticky: Sticky,
        /// End of the time that it is kept for, in seconds since 1970.
        until: u64,
    },
    /// A container that does not exist yet: a program reserved the address for it.
    #[serde(rename_all = "camelCase")]
    Prepared {
        /// The id that the program chose.
        id: PreparedId,
        /// End of the lease, in seconds since 1970. The address is free from then on.
        expires: u64,
    },
}

/// Identity of a holder among those of a network, as its file's name carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderKey {
    /// An interface of a container; nothing more where the name had to be shortened.
    Attachment(Option<(ContainerId, IfName)>),
    /// The node itself.
    Node,
    /// The node that the address with this pool and host number is lent to.
    Lent(PoolIndex, HostNumber),
    /// An identity that an address is kept for.
    Kept(StickyId),
    /// A container that does not exist yet.
    Prepared(PreparedId),
}

impl HolderKey {
    /// Reads the name of a reservation's file; `None` if no holder has such a name.
    pub fn parse(name: &str) -> Option<Self> {
        if name == NODE {
            return Some(Self::Node);
        }
        if let Some(place) = name.strip_prefix(LENT) {
            let (pool, host) = place.split_once('-')?;
            let pool = PoolIndex::new(pool.parse().ok()?).ok()?;
            return Some(Self::Lent(pool, HostNumber::new(host.parse().ok()?)));
        }
        if let Some(id) = name.strip_prefix(KEPT) {
            return Some(Self::Kept(id.parse().ok()?));
        }
        if let Some(id) = name.strip_prefix(PREPARED) {
            return Some(Self::Prepared(id.parse().ok()?));
        }
        let (container_id, ifname) = name.split_once('@')?;
        let container_id = ContainerId::new(container_id).ok()?;
        // The hash of a shortened name is no interface name: it has 16 characters.
        Some(Self::Attachment(IfName::new(ifname).ok().map(|ifname| (container_id, ifname))))
    }

    /// The holder, as far as its key tells all of it.
    pub fn holder(self) -> Option<Holder> {
        match self {
            Self::Attachment(Some((container_id, ifname))) => {
                Some(Holder::Attachment { container_id, ifname })
            }
            Self::Node => Some(Holder::Node),
            Self::Attachment(None) | Self::Lent(..) | Self::Kept(_) | Self::Prepared(_) => None,
        }
    }
}

impl Holder {
    /// The name of the file that stands for this holder. `@` cannot occur in a container id, so
    /// two holders never share a name.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::Node => return NODE.to_owned(),
            Self::Lent { pool, host, .. } => return lent_file_name(*pool, *host),
            Self::Kept { sticky, .. } => return kept_file_name(sticky.id()),
            Self::Prepared { id, .. } => return prepared_file_name(id),
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

    /// The attachment to `network` that holds the address, if one does.
    pub fn attachment(&self, network: &NetworkName) -> Option<Attachment> {
        let Self::Attachment { container_id, ifname } = self else { return None };
        Some(Attachment {
            network: network.clone(),
            container_id: container_id.clone(),
            ifname: ifname.clone(),
        })
    }

    /// Returns whether an address is kept for this very identity. The name of the file says no more
    /// than its id.
    pub fn is_kept_for(&self, sticky: &Sticky) -> bool {
        matches!(self, Self::Kept { sticky: kept, .. } if kept.is_same(sticky))
    }

    /// Returns whether the holder uses its address on this node: an attachment, or the node.
    pub fn is_using(&self) -> bool {
        matches!(self, Self::Node | Self::Attachment { .. })
    }
}

impl From<&Attachment> for Holder {
    fn from(attachment: &Attachment) -> Self {
        Self::Attachment {
            container_id: attachment.container_id.clone(),
            ifname: attachment.ifname.clone(),
        }
    }
}

pub(crate) fn lent_file_name(pool: PoolIndex, host: HostNumber) -> String {
    format!("{LENT}{pool}-{host}")
}

pub(crate) fn kept_file_name(id: StickyId) -> String {
    format!("{KEPT}{id}")
}

pub(crate) fn prepared_file_name(id: &PreparedId) -> String {
    format!("{PREPARED}{id}")
}

/// 64-bit FNV-1a of a file name.
pub(crate) fn hash(name: &str) -> u64 {
    fnv1a(name.as_bytes())
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node itself"),
            Self::Lent { node, .. } => write!(f, "node {node}, to which it was lent"),
            Self::Kept { sticky, .. } => write!(f, "{}, for which it is kept", sticky.identity),
            Self::Prepared { id, .. } => write!(f, "{id}, for which it is reserved"),
            Self::Attachment { container_id, ifname } => write!(f, "{container_id}/{ifname}"),
        }
    }
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

    fn prepared(id: &str) -> Holder {
        Holder::Prepared { id: PreparedId::new(id).unwrap(), expires: 7 }
    }

    #[test]
    fn every_holder_has_a_file_name_of_its_own() {
        assert_eq!(attachment("c1", "eth0").file_name(), "c1@eth0");
        assert_eq!(Holder::Node.file_name(), "@node");
        assert_eq!(prepared("p1").file_name(), "@prepared-p1");
        let long = "x".repeat(300);
        let (a, b) = (attachment(&long, "eth0").file_name(), attachment(&long, "eth1").file_name());
        assert!(a.len() < 255 && b.len() < 255);
        assert_ne!(a, b);
        // An interface name may hold any character but '/', ':' and blanks, '@' included.
        assert_ne!(attachment("c1", "@x").file_name(), attachment("c1", "x").file_name());
    }

    #[test]
    fn reads_every_file_name_that_it_makes() {
        let sticky = Sticky { identity: "web".into(), keep: 60 };
        let (pool, host) = (PoolIndex::new(0).unwrap(), HostNumber::new(9));
        let node = NodeName::new("b").unwrap();
        let lent = Holder::Lent { pool, host, node, loan: None, sticky: None };
        let kept = Holder::Kept { sticky: sticky.clone(), until: 1 };
        for (holder, key) in [
            (lent, HolderKey::Lent(pool, host)),
            (kept, HolderKey::Kept(sticky.id())),
            (prepared("p-1"), HolderKey::Prepared(PreparedId::new("p-1").unwrap())),
        ] {
            assert_eq!(HolderKey::parse(&holder.file_name()), Some(key.clone()));
            assert_eq!(key.holder(), None, "the name does not tell all of it");
        }
        for holder in [Holder::Node, attachment("c1", "eth0"), attachment("c1", "@x")] {
            let key = HolderKey::parse(&holder.file_name()).unwrap();
            assert_eq!(key.holder(), Some(holder));
        }
        let long = attachment(&"x".repeat(300), "eth0");
        assert_eq!(HolderKey::parse(&long.file_name()), Some(HolderKey::Attachment(None)));
        for stray in ["", "@", "@other", "@kept-x", "@lent-0", "@prepared-", "no-holder"] {
            assert_eq!(HolderKey::parse(stray), None, "{stray}");
        }
    }
}
