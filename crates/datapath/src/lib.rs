//! The data plane on Linux: what the kernel is told, and what it is asked.
//!
//! Knows the values of [`weft_model`] and the kernel, and nothing of CNI or of the cluster store. No
//! type of the netlink libraries shows through: their releases break often.
//!
//! # How frames find their way
//!
//! A network is a bridge on each node, with a VXLAN device as one of its ports and the containers'
//! veths as the others. Nothing is learned and nothing is flooded into the tunnel; the kernel is told
//! everything in advance, in three tables for each remote address:
//!
//! | table | entry | serves |
//! |---|---|---|
//! | neighbours of the bridge | address → MAC | the host's own packets; and, by `neigh_suppress` on the VXLAN port, the answer to containers' ARP and neighbour solicitations |
//! | bridge's FDB (`master`) | MAC → VXLAN port | frames find the tunnel, and `neigh_suppress` checks that the answer lies beyond it |
//! | VXLAN's FDB (`self`) | MAC → VTEP | frames find the node |
//!
//! The other way of answering ARP locally, `proxy` on the VXLAN device, wants its neighbours on that
//! device and the host's own on the bridge: an entry more for each address, of the costliest kind.
//!
//! - [`netns`]: network namespaces; the only place that changes one.
//! - [`netlink`]: requests and dumps that can be trusted.
//! - [`link`]: links as seen, and the words for making them.
//! - [`underlay`]: the interface that carries the tunnel.
//! - [`segment`]: bridge and VXLAN device of a network.
//! - [`attach`]: a container's veth.
//! - [`ports`]: veths that have lost their bridge.
//! - [`peers`]: the three tables, compared and corrected.
//! - [`events`]: news of links.
//! - [`firewall`]: masquerade and isolation, once for each network.
//! - [`sysctl`]: the few kernel settings that it takes.

mod address;
pub mod attach;
mod error;
pub mod events;
pub mod firewall;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod peers;
pub mod ports;
pub mod segment;
pub mod sysctl;
pub mod underlay;

pub use error::DatapathError;
