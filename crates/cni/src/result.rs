//! Results: the interfaces, addresses and routes of an attachment, in each version's shape.
//!
//! Inside there is one shape, the newest. [`CniResult::render`] and [`CniResult::parse`] know what
//! each version calls things and what it lacks.

mod parse;
mod render;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// The parts of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CniResult {
    /// The interfaces that were made, on the host and in the sandbox.
    pub interfaces: Vec<Interface>,
    /// The addresses.
    pub ips: Vec<Ip>,
    /// The routes.
    pub routes: Vec<Route>,
    /// The container's name resolution.
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC, lower case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// `CNI_NETNS`, if it is in the sandbox.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// A socket that stands for it, since 1.1.0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// A device that stands for it, since 1.1.0.
    #[serde(default, rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Index of the interface in the result that has it.
    pub interface: Option<usize>,
    /// The address with the subnet's prefix length, host bits kept.
    pub address: IpNetwork,
    /// The next hop out of the subnet.
    pub gateway: Option<IpAddr>,
}

/// A route in a CNI result. A network's own routes are `weft_model::network::Route`, and those that
/// the kernel gets `weft_datapath::address::Route`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    #[serde(deserialize_with = "parse::network")]
    pub dst: IpNetwork,
    /// The next hop.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "parse::lenient_address"
    )]
    pub gw: Option<IpAddr>,
    /// The MTU of the path, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The TCP segment size to announce, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope, since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

impl Route {
    /// The route to `dst` by way of `gw`, and nothing else about it.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        let (mtu, advmss, priority, table, scope) = (None, None, None, None, None);
        Self { dst, gw, mtu, advmss, priority, table, scope }
    }
}

/// Name resolution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The servers' addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// The resolver's options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

#[cfg(test)]
mod tests;
