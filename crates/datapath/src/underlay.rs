//! The underlay: the interface that carries the tunnel.

use std::net::IpAddr;

use crate::DatapathError;
use crate::link::Link;
use crate::netlink::Netlink;

/// The way in which the underlay is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The interface of the default route.
    DefaultRoute,
    /// The interface with this name.
    Interface(String),
    /// The interface with this address, and the address.
    Address(IpAddr),
}

/// The underlay of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// The interface's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The address that VXLAN packets are sent from and to.
    pub vtep: IpAddr,
}

/// Finds the underlay of the calling thread's namespace.
pub async fn find(netlink: &Netlink, selector: &Selector) -> Result<Underlay, DatapathError> {
    let nothing = |text: String| {
        DatapathError::Underlay(format!("{text}; set `underlay` in the node's configuration"))
    };
    match selector {
        Selector::DefaultRoute => {
            let index = netlink.default_routes().await?.into_iter().next().ok_or_else(|| {
                nothing("this host has no default route to find the underlay by".into())
            })?;
            let link = netlink.link_with_index(index).await?.ok_or_else(|| {
                nothing("the interface of the default route has just disappeared".into())
            })?;
            with_address(netlink, link).await
        }
        Selector::Interface(name) => {
            let link = netlink.link(name).await?;
            let link = link.ok_or_else(|| nothing(format!("there is no interface {name}")))?;
            with_address(netlink, link).await
        }
        Selector::Address(address) => {
            for link in netlink.links().await? {
                let addresses = netlink.addresses(link.index).await?;
                if addresses.iter().any(|a| a.ip() == *address) {
                    let Link { index, name, mtu, .. } = link;
                    return Ok(Underlay { index, name, mtu, vtep: *address });
                }
            }
            Err(nothing(format!("no interface of this host has address {address}")))
        }
    }
}

/// The underlay on `link`: its first IPv4 address, or else its first IPv6 address.
async fn with_address(netlink: &Netlink, link: Link) -> Result<Underlay, DatapathError> {
    let addresses = netlink.addresses(link.index).await?;
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    match v4.or_else(|| addresses.first()) {
        Some(address) => {
            let Link { index, name, mtu, .. } = link;
            Ok(Underlay { index, name, mtu, vtep: address.ip() })
        }
        None => Err(DatapathError::Underlay(format!(
            "underlay interface {} has no address to send VXLAN from; give it one, or name another \
             as `underlay` in the node's configuration",
            link.name
        ))),
    }
}
