//! Links as the kernel shows them, and the messages that create and change them.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoPortData, InfoVxlan,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBridgePort, LinkMessageBuilder, LinkUnspec};
use weft_model::{MacAddr, device};

use crate::DatapathError;
use crate::netlink::{self, Netlink, Outcome, Request};

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// True if it is set up by the administrator.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its MAC, if it has one.
    pub mac: Option<MacAddr>,
    /// The kind of virtual device: `bridge`, `vxlan`, `veth`, ...
    pub kind: Option<String>,
    /// The index of the bridge that it is a port of.
    pub bridge: Option<u32>,
    /// Its alias.
    pub alias: String,
    /// The index of the link that it is tied to: of a veth, its other end's, in whatever namespace
    /// that is.
    pub tied_to: Option<u32>,
    /// This namespace's number for the namespace of the link that it is tied to, if that is
    /// another.
    pub tied_to_netns: Option<i32>,
    /// Its settings as a VXLAN device.
    pub vxlan: Option<Vxlan>,
    /// Its settings as a port of a bridge.
    pub port: PortFlags,
}

/// The settings of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vxlan {
    /// Its VNI.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The VTEP.
    pub local: Option<IpAddr>,
    /// The index of the underlay interface; 0: the one that a route leads to.
    pub underlay: u32,
    /// The outer TTL; 0: the kernel's default.
    pub ttl: u8,
    /// True if it learns addresses.
    pub learning: bool,
}

/// The settings of a bridge's port that weft uses.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel's")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortFlags {
    /// True if source addresses are learned.
    pub learning: bool,
    /// True if frames to unknown addresses leave by it.
    pub unicast_flood: bool,
    /// True if multicast leaves by it.
    pub multicast_flood: bool,
    /// True if broadcast leaves by it.
    pub broadcast_flood: bool,
    /// True if ARP and neighbour solicitations are answered instead of leaving by it.
    pub neigh_suppress: bool,
    /// True if frames may leave by the port that they came in by.
    pub hairpin: bool,
    /// True if only frames from known addresses come in.
    pub locked: bool,
}

impl PortFlags {
    /// The message that gives these settings to the port with `index`.
    pub(crate) fn request(self, index: u32) -> LinkMessageBuilder<LinkBridgePort> {
        LinkBridgePort::new(index)
            .learning(self.learning)
            .flood(self.unicast_flood)
            .mcast_flood(self.multicast_flood)
            .bcast_flood(self.broadcast_flood)
            .neigh_suppress(self.neigh_suppress)
            .hairpin(self.hairpin)
            .locked(self.locked)
    }
}

impl Link {
    pub(crate) fn of(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr::from_bytes);
                }
                LinkAttribute::Controller(index) if *index != 0 => link.bridge = Some(*index),
                LinkAttribute::Link(index) => link.tied_to = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.tied_to_netns = Some(*id),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::LinkInfo(infos) => link.read_infos(infos),
                _ => {}
            }
        }
        link
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vxlan(data)) => self.vxlan = Some(Vxlan::of(data)),
                LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                    self.port = PortFlags::of(data);
                }
                _ => {}
            }
        }
    }

    /// Returns whether it is a device of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

impl Vxlan {
    fn of(data: &[InfoVxlan]) -> Self {
        let mut vxlan = Self::default();
        for info in data {
            match info {
                InfoVxlan::Id(vni) => vxlan.vni = *vni,
                InfoVxlan::Port(port) => vxlan.port = *port,
                InfoVxlan::Local(local) => vxlan.local = Some((*local).into()),
                InfoVxlan::Local6(local) => vxlan.local = Some((*local).into()),
                InfoVxlan::Link(index) => vxlan.underlay = *index,
                InfoVxlan::Ttl(ttl) => vxlan.ttl = *ttl,
                InfoVxlan::Learning(learning) => vxlan.learning = *learning,
                _ => {}
            }
        }
        vxlan
    }
}

impl PortFlags {
    fn of(data: &[InfoBridgePort]) -> Self {
        let mut flags = Self::default();
        for info in data {
            match info {
                InfoBridgePort::Learning(on) => flags.learning = *on,
                InfoBridgePort::UnicastFlood(on) => flags.unicast_flood = *on,
                InfoBridgePort::MulticastFlood(on) => flags.multicast_flood = *on,
                InfoBridgePort::BroadcastFlood(on) => flags.broadcast_flood = *on,
                InfoBridgePort::NeighSupress(on) => flags.neigh_suppress = *on,
                InfoBridgePort::HairpinMode(on) => flags.hairpin = *on,
                InfoBridgePort::Locked(on) => flags.locked = *on,
                _ => {}
            }
        }
        flags
    }
}

/// Attributes of a link in weft's own terms.
pub(crate) trait LinkAttributes {
    fn mac(self, mac: MacAddr) -> Self;

    /// The alias, cut to the length that the kernel takes.
    fn short_alias(self, alias: &str) -> Self;

    /// No link-local address: neither host nor overlay has a use for one on these devices, and
    /// making one sends packets.
    fn no_link_local(self) -> Self;
}

impl<T> LinkAttributes for LinkMessageBuilder<T> {
    fn mac(self, mac: MacAddr) -> Self {
        self.address(mac.bytes().to_vec())
    }

    fn short_alias(self, alias: &str) -> Self {
        let ends = alias.char_indices().map(|(i, c)| i + c.len_utf8());
        let end = ends.take_while(|end| *end <= device::LONGEST_ALIAS).last();
        self.alias(&alias[..end.unwrap_or(0)])
    }

    fn no_link_local(self) -> Self {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]))
    }
}

pub(crate) fn named(name: &str) -> LinkMessage {
    LinkUnspec::new_with_name(name).build()
}

fn indexed(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).build()
}

/// The request that creates the link, which must not exist.
pub(crate) fn to_create(link: LinkMessage) -> Request {
    Request::change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// The request that changes the link: RTM_NEWLINK without NLM_F_CREATE, which unlike RTM_SETLINK
/// takes the settings of a port.
pub(crate) fn to_change(link: LinkMessage) -> Request {
    Request::change(RouteNetlinkMessage::NewLink(link), 0)
}

/// The request that shows the link, without its counters.
pub(crate) fn to_show(mut link: LinkMessage) -> Request {
    link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::get(RouteNetlinkMessage::GetLink(link))
}

impl Netlink {
    /// Creates a link that must not exist.
    pub(crate) async fn create_link(
        &self,
        link: LinkMessage,
        what: impl Fn() -> String,
    ) -> Result<(), DatapathError> {
        self.request(to_create(link), what).await
    }

    /// Changes a link that exists.
    pub(crate) async fn change_link(
        &self,
        link: LinkMessage,
        what: impl Fn() -> String,
    ) -> Result<(), DatapathError> {
        self.request(to_change(link), what).await
    }

    /// Deletes the link called `name` and waits until the kernel has let go of it. Returns whether
    /// it was there.
    pub async fn delete_link(&self, name: &str) -> Result<bool, DatapathError> {
        let delete = Request::change(RouteNetlinkMessage::DelLink(named(name)), 0);
        match self.request(delete, || format!("delete {name}")).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The link called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, DatapathError> {
        self.show(named(name), || format!("read {name}")).await
    }

    /// The link with `index`, if there is one.
    pub async fn link_with_index(&self, index: u32) -> Result<Option<Link>, DatapathError> {
        self.show(indexed(index), || format!("read the link with index {index}")).await
    }

    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, DatapathError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answer = self.dump(message, || "list links".into()).await?;
        Ok(answer.iter().filter_map(link_of).collect())
    }

    /// The links with these indexes, in the same order.
    pub(crate) async fn links_with_indexes(
        &self,
        indexes: &[u32],
    ) -> Result<Vec<Option<Link>>, DatapathError> {
        let what = || format!("read the links with indexes {indexes:?}");
        let requests = indexes.iter().map(|index| to_show(indexed(*index)));
        let outcomes = self.exchange(requests.collect(), what).await?;
        outcomes.into_iter().map(|outcome| shown(outcome, what)).collect()
    }

    async fn show(
        &self,
        link: LinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Option<Link>, DatapathError> {
        let outcome = self.exchange(vec![to_show(link)], &what).await?.pop();
        outcome.map_or(Ok(None), |outcome| shown(outcome, what))
    }
}

/// The link that the kernel showed, if there is one.
pub(crate) fn shown(
    outcome: Outcome,
    what: impl FnOnce() -> String,
) -> Result<Option<Link>, DatapathError> {
    match outcome.map_err(|refusal| netlink::refused(what(), refusal)) {
        Ok(answer) => Ok(answer.iter().find_map(link_of)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::of(message)),
        _ => None,
    }
}
