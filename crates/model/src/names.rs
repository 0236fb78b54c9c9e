//! Names: of networks, nodes, containers and interfaces.
//!
//! The rules for networks and container ids are those of the CNI specification 1.1 (§3, "Network
//! configuration format" and "Parameters"); those for interfaces are the kernel's
//! (`dev_valid_name` in `net/core/dev.c`). Node names follow the network rule, because both become
//! one path segment in the cluster store and one file name on the node.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Longest network and node name: it must fit, with a suffix, into one file name.
const MAX_NAME: usize = 200;

fn check_cni_name(kind: &'static str, value: &str) -> Result<(), ModelError> {
    let refuse = |reason| Err(ModelError::Name { kind, value: value.to_owned(), reason });
    let Some(first) = value.chars().next() else {
        return refuse("it is empty");
    };
    if !first.is_ascii_alphanumeric() {
        return refuse("it must begin with a letter or a digit");
    }
    if !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return refuse("only letters, digits, '_', '.' and '-' are allowed");
    }
    Ok(())
}

fn check_short_name(kind: &'static str, value: &str) -> Result<(), ModelError> {
    check_cni_name(kind, value)?;
    if value.len() > MAX_NAME {
        return Err(ModelError::Name {
            kind,
            value: value.to_owned(),
            reason: "it is longer than 200 characters",
        });
    }
    Ok(())
}

fn check_ifname(kind: &'static str, value: &str) -> Result<(), ModelError> {
    let refuse = |reason| Err(ModelError::Name { kind, value: value.to_owned(), reason });
    if value.is_empty() || value.len() > 15 {
        return refuse("it must have 1 to 15 characters");
    }
    if value == "." || value == ".." {
        return refuse("the kernel keeps this name for itself");
    }
    if value.chars().any(|c| c == '/' || c == ':' || c.is_whitespace()) {
        return refuse("'/', ':' and blanks are not allowed");
    }
    if value.contains('%') {
        return refuse("the kernel takes '%' for the place of a number");
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a name that obeys the rules of its kind.
            pub fn new(value: impl Into<String>) -> Result<Self, ModelError> {
                let value = value.into();
                $check($kind, &value)?;
                Ok(Self(value))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ModelError;
            fn from_str(value: &str) -> Result<Self, ModelError> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = ModelError;
            fn try_from(value: String) -> Result<Self, ModelError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name_type!(
    /// The name of a network: the `name` of its CNI configuration.
    NetworkName, "network name", check_short_name
);
name_type!(
    /// The name of a node, unique in the cluster.
    NodeName, "node name", check_short_name
);
name_type!(
    /// `CNI_CONTAINERID`: what the runtime calls the sandbox.
    ContainerId, "container id", check_cni_name
);
name_type!(
    /// The id of an address that is reserved before its container exists, as the program that
    /// reserved it chose it.
    PreparedId, "id of a prepared address", check_short_name
);
name_type!(
    /// `CNI_IFNAME`: the interface's name inside the sandbox.
    IfName, "interface name", check_ifname
);

/// One interface of one container on one network, the unit that CNI adds and deletes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The network attached to.
    pub network: NetworkName,
    /// The sandbox.
    pub container_id: ContainerId,
    /// The interface inside the sandbox.
    pub ifname: IfName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on network {}", self.container_id, self.ifname, self.network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_names_follow_the_cni_rule() {
        for good in ["a", "ovnet1", "0", "my.net-work_1"] {
            assert!(NetworkName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "../x"] {
            assert!(NetworkName::new(bad).is_err(), "{bad}");
        }
        assert!(NetworkName::new("a".repeat(201)).is_err());
    }

    #[test]
    fn interface_names_follow_the_kernel_rule() {
        for good in ["eth0", "a-very-long-nam", "@x", "é"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-", "eth%d"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn container_ids_may_be_long() {
        assert!(ContainerId::new("c".repeat(400)).is_ok());
    }
}
