//! Addresses and routes of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::AddressMessageBuilder;

use crate::DatapathError;
use crate::netlink::{Netlink, Request};

/// The table of the host's own addresses (`RT_TABLE_LOCAL`).
const TABLE_LOCAL: u8 = 255;

/// Origin of the route to an address's subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrefixRoute {
    /// The kernel adds it.
    Automatic,
    /// It is added by hand, or not at all.
    None,
}

/// A route to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; none: the destination is on the link.
    pub gw: Option<IpAddr>,
    /// The source address of what this host sends.
    pub source: Option<IpAddr>,
    /// The metric.
    pub priority: Option<u32>,
    /// The routing table; none: the main one.
    pub table: Option<u32>,
    /// The MTU of the path, in bytes.
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, in bytes.
    pub advmss: Option<u32>,
}

impl Route {
    /// The route to `dst` by way of `gw`.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        let (source, priority, table, mtu, advmss) = (None, None, None, None, None);
        Self { dst, gw, source, priority, table, mtu, advmss }
    }
}

/// A route as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundRoute {
    /// The index of the link that it leads to.
    pub(crate) link: u32,
    /// The destination.
    pub(crate) dst: IpNetwork,
    /// The next hop.
    pub(crate) gw: Option<IpAddr>,
}

/// Treatment of a route to the same destination that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Put the new one in its place.
    Replace,
    /// Put the new one beside it, as a container with several networks needs.
    Keep,
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn address_message(index: u32, address: IpNetwork) -> AddressMessage {
    match address {
        IpNetwork::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.ip(), net.prefix())
            .build(),
        IpNetwork::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.ip(), net.prefix())
            .build(),
    }
}

/// The request that gives the link an address.
pub(crate) fn address_request(
    index: u32,
    address: IpNetwork,
    prefix_route: PrefixRoute,
) -> Request {
    let mut message = address_message(index, address);
    let mut flags = AddressFlags::empty();
    if address.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if prefix_route == PrefixRoute::None {
        flags |= AddressFlags::Noprefixroute;
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    Request::change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The request that sets a route by way of the link.
pub(crate) fn route_request(index: u32, route: &Route, existing: Existing) -> Request {
    let flags = match existing {
        Existing::Replace => NLM_F_CREATE | NLM_F_REPLACE,
        Existing::Keep => NLM_F_CREATE,
    };
    Request::change(RouteNetlinkMessage::NewRoute(route_message(index, route)), flags)
}

/// The words for setting a route.
pub(crate) fn describe_route(index: u32, route: &Route) -> String {
    let by = route.gw.map_or_else(String::new, |gw| format!(" via {gw}"));
    format!("add route {}{by} to the link with index {index}", route.dst)
}

impl Netlink {
    /// Gives the link an address; it may have it already. IPv6 addresses are usable at once: the
    /// IPAM has made sure that no other container has them.
    pub(crate) async fn set_address(
        &self,
        index: u32,
        address: IpNetwork,
        prefix_route: PrefixRoute,
    ) -> Result<(), DatapathError> {
        let what = || format!("add address {address} to the link with index {index}");
        self.request(address_request(index, address, prefix_route), what).await
    }

    /// Takes an address from the link; it may not have it.
    pub(crate) async fn remove_address(
        &self,
        index: u32,
        address: IpNetwork,
    ) -> Result<(), DatapathError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        let removed = self.request(Request::change(message, 0), || {
            format!("remove address {address} from the link with index {index}")
        });
        match removed.await {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// The addresses of the link, without those that the kernel makes by itself (link-local).
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNetwork>, DatapathError> {
        let mut question = AddressMessage::default();
        question.header.index = index;
        let question = RouteNetlinkMessage::GetAddress(question);
        let answer = self
            .dump(question, || format!("list addresses of the link with index {index}"))
            .await?;
        let mut addresses = vec![];
        for message in answer {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            // Kernels without strict checking ignore the filter.
            if message.header.index != index || message.header.scope == AddressScope::Link {
                continue;
            }
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            let prefix = message.header.prefix_len;
            addresses.extend(address.and_then(|address| IpNetwork::new(address, prefix).ok()));
        }
        Ok(addresses)
    }

    /// Sets a route by way of the link.
    pub(crate) async fn set_route(
        &self,
        index: u32,
        route: &Route,
        existing: Existing,
    ) -> Result<(), DatapathError> {
        let what = || describe_route(index, route);
        self.request(route_request(index, route, existing), what).await
    }

    /// The routes of the namespace, in whatever table, without those of its own addresses. A route
    /// with several next hops is one for each.
    pub(crate) async fn routes(&self) -> Result<Vec<FoundRoute>, DatapathError> {
        let mut routes = vec![];
        for (header, attributes) in self.all_routes().await? {
            if header.table == TABLE_LOCAL {
                continue;
            }
            let Shown { dst, hops, .. } = Shown::of(&header, &attributes);
            let found = |hop: Hop| FoundRoute { link: hop.oif, dst, gw: hop.gw };
            routes.extend(hops.into_iter().map(found));
        }
        Ok(routes)
    }

    /// The interfaces of the default routes, the preferred one first: IPv4 before IPv6, then by
    /// metric. Of a multipath route it is the first next hop's, so that every caller gets the same.
    pub(crate) async fn default_routes(&self) -> Result<Vec<u32>, DatapathError> {
        let mut found = vec![];
        for (header, attributes) in self.all_routes().await? {
            let shown = Shown::of(&header, &attributes);
            if header.table == RouteHeader::RT_TABLE_MAIN
                && header.kind == RouteType::Unicast
                && shown.dst.prefix() == 0
                && let Some(hop) = shown.hops.first()
            {
                found.push((shown.dst.is_ipv6(), shown.priority, hop.oif));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, _, oif)| oif).collect())
    }

    async fn all_routes(&self) -> Result<Vec<(RouteHeader, Vec<RouteAttribute>)>, DatapathError> {
        let mut routes = vec![];
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let question = RouteNetlinkMessage::GetRoute(question);
            for message in self.dump(question, || "list routes".into()).await? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.push((message.header, message.attributes));
                }
            }
        }
        Ok(routes)
    }
}

/// A route as the kernel shows it.
struct Shown {
    dst: IpNetwork,
    /// One, unless it is a multipath route; none if it leads to no interface.
    hops: Vec<Hop>,
    priority: u32,
}

/// A next hop of a route.
struct Hop {
    oif: u32,
    gw: Option<IpAddr>,
}

impl Shown {
    fn of(header: &RouteHeader, attributes: &[RouteAttribute]) -> Self {
        let any: IpAddr = match header.address_family {
            AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
        };
        let (mut dst, mut gw, mut oif, mut priority) = (any, None, None, 0);
        let mut hops = vec![];
        for attribute in attributes {
            match attribute {
                RouteAttribute::Destination(address) => dst = ip(address).unwrap_or(any),
                RouteAttribute::Gateway(address) => gw = ip(address),
                RouteAttribute::Oif(index) => oif = Some(*index),
                RouteAttribute::MultiPath(all) => hops.extend(all.iter().map(Hop::of)),
                RouteAttribute::Priority(value) => priority = *value,
                _ => {}
            }
        }
        let prefix = header.destination_prefix_length;
        let dst = IpNetwork::new(dst, prefix).unwrap_or_else(|_| IpNetwork::from(dst));
        hops.extend(oif.map(|oif| Hop { oif, gw }));
        Self { dst, hops, priority }
    }
}

impl Hop {
    fn of(hop: &RouteNextHop) -> Self {
        let gw = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            _ => None,
        });
        Self { oif: hop.interface_index, gw }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.dst.ip());
    message.header.destination_prefix_length = route.dst.prefix();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.scope = if route.gw.is_none() && route.dst.is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route_address(route.dst.network())));
    attributes.push(RouteAttribute::Oif(index));
    attributes.extend(route.gw.map(|gw| RouteAttribute::Gateway(route_address(gw))));
    attributes.extend(route.source.map(|s| RouteAttribute::PrefSource(route_address(s))));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    if let Some(table) = route.table.filter(|table| *table != 0) {
        message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        attributes.push(RouteAttribute::Table(table));
    }
    let mut metrics = vec![];
    metrics.extend(route.mtu.map(RouteMetric::Mtu));
    metrics.extend(route.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}
