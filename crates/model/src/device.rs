//! Names of the interfaces that weft makes on a node.
//!
//! A name says what the device is (`wb` bridge, `wx` VXLAN, `wv` host end of a veth) and then which
//! one: the VNI, or a hash of the attachment. Both are functions of what the device is for, so any
//! process finds a device without keeping a list, and finds it again after a crash.

use crate::hash::fnv1a;
use crate::{Attachment, NetworkName, Vni};

/// Longest alias of a device, in bytes. The kernel takes 255 (`IFALIASZ - 1` in `linux/if.h`), and
/// counts the NUL that a netlink message ends it with.
pub const LONGEST_ALIAS: usize = 254;

/// The beginning of every alias that weft gives.
const ALIAS: &str = "weft:";

/// The words before the network's name in the alias of a host end.
const ON_NETWORK: &str = " on network ";

/// Mark of a container id that is cut short in an alias. No id has this character.
const ELLIPSIS: &str = "\u{2026}";

/// The overlay bridge of the network with `vni`.
pub fn bridge(vni: Vni) -> String {
    format!("wb{vni}")
}

/// The VXLAN device of the network with `vni`.
pub fn vxlan(vni: Vni) -> String {
    format!("wx{vni}")
}

/// The host end of an attachment's veth: `wv` and 13 hexadecimal digits, the 15 characters that the
/// kernel allows.
pub fn host_end(attachment: &Attachment) -> String {
    let Attachment { network, container_id, ifname } = attachment;
    let hash = fnv1a(format!("{network}\n{container_id}\n{ifname}").as_bytes());
    format!("wv{:013x}", hash >> 12)
}

/// The alias of an attachment's host end: `weft:<container>/<interface> on network <network>`.
///
/// The network is always there in full, for [`network_of`] reads it. A container id that leaves no
/// room for it is shortened; the shortest alias of the longest names has room for 18 digits of it.
pub fn host_end_alias(attachment: &Attachment) -> String {
    let Attachment { network, container_id, ifname } = attachment;
    let rest = format!("/{ifname}{ON_NETWORK}{network}");
    let id = container_id.as_str();
    let room = LONGEST_ALIAS.saturating_sub(ALIAS.len() + rest.len());
    if id.len() <= room {
        return format!("{ALIAS}{id}{rest}");
    }
    // Container ids are ASCII.
    let begin = id.get(..room.saturating_sub(ELLIPSIS.len())).unwrap_or_default();
    format!("{ALIAS}{begin}{ELLIPSIS}{rest}")
}

/// The network of the host end with this alias; `None` if the alias is none of a host end.
pub fn network_of(alias: &str) -> Option<NetworkName> {
    // Neither container ids nor interfaces have blanks.
    let (_, network) = alias.strip_prefix(ALIAS)?.split_once(ON_NETWORK)?;
    network.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerId, IfName};

    #[test]
    fn names_fit_into_15_characters() {
        assert_eq!(bridge(Vni::MAX), "wb16777215");
        assert_eq!(vxlan(Vni::MAX), "wx16777215");
        let attachment = |id: &str, ifname: &str| Attachment {
            network: NetworkName::new("ovnet1").unwrap(),
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        };
        let name = host_end(&attachment("c1", "eth0"));
        assert_eq!(name.len(), 15);
        assert_eq!(name, host_end(&attachment("c1", "eth0")));
        assert_ne!(name, host_end(&attachment("c1", "eth1")));
        assert_ne!(name, host_end(&attachment("c2", "eth0")));
    }

    #[test]
    fn an_alias_always_has_the_whole_network() {
        for (network, id, ifname) in [
            (6, 2, "eth0"),
            (200, 2, "eth0"),
            (200, 64, "eth0"),
            (200, 400, "fifteen-letters"),
            (170, 64, "eth0"),
            (171, 64, "eth0"),
        ] {
            let attachment = Attachment {
                network: NetworkName::new("n".repeat(network)).unwrap(),
                container_id: ContainerId::new("0123456789abcdef".repeat(25)[..id].to_owned())
                    .unwrap(),
                ifname: IfName::new(ifname).unwrap(),
            };
            let alias = host_end_alias(&attachment);
            assert!(alias.len() <= LONGEST_ALIAS, "{alias}");
            assert_eq!(network_of(&alias), Some(attachment.network.clone()));
            let shown = &alias[5..5 + id.min(18)];
            assert!(attachment.container_id.as_str().starts_with(shown), "{alias}");
            if alias.len() < LONGEST_ALIAS - 3 {
                assert_eq!(alias, format!("weft:{attachment}"));
            }
        }
    }

    #[test]
    fn other_aliases_are_of_no_network() {
        for other in ["", "weft:red", "mine", "c/eth0 on network red", "weft:c/eth0 on network "] {
            assert_eq!(network_of(other), None, "{other}");
        }
        assert_ne!(network_of("weft:c/e on network xred"), "red".parse().ok());
    }
}
