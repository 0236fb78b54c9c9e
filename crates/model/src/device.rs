//! Names of the interfaces that weft makes on a node.
//!
//! A name says what the device is (`wb` bridge, `wx` VXLAN, `wv` host end of a veth) and then which
//! one: the VNI, or a hash of the attachment. Both are functions of what the device is for, so any
//! process finds a device without keeping a list, and finds it again after a crash.

use crate::hash::fnv1a;
use crate::{Attachment, Vni};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerId, IfName, NetworkName};

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
}
