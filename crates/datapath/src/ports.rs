//! Ports that have lost their bridge, and their way back to it.
//!
//! A bridge that is deleted leaves its ports behind, without the settings that they had as ports.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::LinkUnspec;
use weft_model::MacAddr;

use crate::DatapathError;
use crate::attach::{self, Hairpin, PortSecurity};
use crate::link::{Link, link_of, named};
use crate::netlink::Netlink;

/// The MAC of the other end of the veth called `host_end`, wherever that is.
pub async fn other_ends_mac(
    netlink: &Netlink,
    host_end: &str,
) -> Result<Option<MacAddr>, DatapathError> {
    let what = || format!("read the other end of {host_end}");
    let show = |link: LinkMessage| netlink.get(RouteNetlinkMessage::GetLink(link), what);
    let answer = match show(named(host_end)).await {
        Err(error) if error.is_missing() => return Ok(None),
        answer => answer?,
    };
    let Some(RouteNetlinkMessage::NewLink(message)) = answer.into_iter().next() else {
        return Ok(None);
    };
    let (mut index, mut netns) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Link(link) => index = Some(link),
            LinkAttribute::LinkNetNsId(id) => netns = Some(id),
            _ => {}
        }
    }
    let Some(index) = index else { return Ok(None) };
    // The kernel shows a link of another namespace by this one's number for it: no need to enter.
    let mut request = LinkUnspec::new_with_index(index);
    if let Some(netns) = netns {
        request = request.append_extra_attribute(LinkAttribute::IfNetnsId(netns));
    }
    match show(request.build()).await {
        Ok(answer) => Ok(answer.iter().find_map(link_of).and_then(|link| link.mac)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the host end of a container's veth is what it should be: a port of `bridge`, and
/// closed to all but its own MAC.
pub fn is_joined(host_end: &Link, bridge: u32) -> bool {
    host_end.bridge == Some(bridge) && host_end.port.locked && host_end.up
}

/// Makes the host end of a container's veth a port of the bridge again, with the settings that it
/// was made with; `mac` is the container's. It is down until it is protected.
pub async fn join(
    netlink: &Netlink,
    host_end: &Link,
    bridge: u32,
    mac: MacAddr,
) -> Result<(), DatapathError> {
    let request = LinkUnspec::new_with_index(host_end.index).down().controller(bridge);
    let name = host_end.name.as_str();
    netlink.change_link(request.build(), || format!("make {name} a port of its bridge")).await?;
    let hairpin = if host_end.port.hairpin { Hairpin::On } else { Hairpin::Off };
    let (index, alias) = (host_end.index, host_end.alias.as_str());
    attach::secure_port(netlink, &PortSecurity { index, name, alias, mac, hairpin }).await
}
