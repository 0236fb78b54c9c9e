//! The data plane on Linux: links, addresses, tables and rules of the kernel.
//!
//! Knows the values of [`weft_model`] and the kernel, and nothing of CNI or of the cluster store.
//! No type of the netlink libraries shows through: their releases break often.
//!
//! # The way of a frame
//!
//! A network is a bridge on each node, with a VXLAN device as one of its ports and the containers'
//! veths as the others. Nothing is learned and nothing is flooded into the tunnel; the kernel is
//! told everything in advance, in three tables for each remote address:
//!
//! - neighbours of the bridge, address → MAC: for the host's own packets; and, by `neigh_suppress`
//!   on the VXLAN port, for the answer to containers' ARP and neighbour solicitations;
//! - the bridge's FDB (`master`), MAC → VXLAN port: frames find the tunnel, and `neigh_suppress`
//!   checks that the answer lies beyond it;
//! - the VXLAN device's FDB (`self`), MAC → VTEP: frames find the node.
//!
//! The other way of answering ARP locally, `proxy` on the VXLAN device, wants its neighbours on
//! that device and the host's own on the bridge: an entry more for each address, of the costliest
//! kind.
//!
//! # Modules
//!
//! - [`netns`]: network namespaces; the only place that changes one.
//! - [`netlink`]: requests in batches, and dumps that can be trusted.
//! - [`link`]: links as the kernel shows them, and the requests that create them.
//! - [`underlay`]: the interface that carries the tunnel.
//! - [`segment`]: bridge and VXLAN device of a network.
//! - [`attach`]: a container's veth.
//! - [`ports`]: veths that have lost their bridge.
//! - [`peers`]: addresses on other nodes; [`peers::bridged`]: the three tables.
//! - [`events`]: events of links.
//! - [`firewall`]: masquerade and isolation, once for each network.
//! - [`sysctl`]: the few kernel settings that it takes.
//!
//! # Threads
//!
//! The kernel carries out a routing request on the thread that makes it, and `nft` takes its time
//! too. A plugin process has nothing else to do meanwhile: [`netlink::Netlink::open`],
//! [`netns::Entry::CallingThread`]. An agent serves others on its thread, and leaves the work to
//! others: it calls [`firewall`] and uses [`netlink::Netlink::open_shared`] from threads for
//! blocking work only, and otherwise [`netlink::Netlink::open_offloaded`] and
//! [`netns::Entry::NewThread`].

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
