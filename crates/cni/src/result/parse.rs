//! Results as each version writes them, read.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{CniResult, Dns, Interface, Ip, Route};
use crate::object::Object;
use crate::version::Version;

#[derive(Deserialize)]
struct New {
    #[serde(default, deserialize_with = "null_is_default")]
    interfaces: Vec<Object<Interface>>,
    #[serde(default, deserialize_with = "null_is_default")]
    ips: Vec<Object<NewIp>>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<Object<Route>>,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: Object<Dns>,
}

#[derive(Deserialize)]
struct NewIp {
    #[serde(default)]
    interface: Option<usize>,
    address: IpNetwork,
    #[serde(default, deserialize_with = "lenient_address")]
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Old {
    #[serde(default)]
    ip4: Option<Object<OldIp>>,
    #[serde(default)]
    ip6: Option<Object<OldIp>>,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: Object<Dns>,
}

#[derive(Deserialize)]
struct OldIp {
    ip: IpNetwork,
    #[serde(default, deserialize_with = "lenient_address")]
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<Object<Route>>,
}

impl CniResult {
    /// Reads a result. One that does not say its version is of `assumed`.
    pub fn parse(value: &Value, assumed: Version) -> Result<Self, String> {
        // serde would take a list for the fields of a struct in their order.
        if !value.is_object() {
            return Err(format!("expected an object, not {value}"));
        }
        let version = match value.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => assumed,
            Some(text) => text.parse().map_err(|_| format!("result of unknown version {text}"))?,
        };
        if version < Version::V0_3_0 {
            let old: Old = Deserialize::deserialize(value).map_err(|error| error.to_string())?;
            return Ok(old.into());
        }
        let new: New = Deserialize::deserialize(value).map_err(|error| error.to_string())?;
        Ok(new.into())
    }
}

impl From<New> for CniResult {
    fn from(new: New) -> Self {
        let ip = |Object(ip): Object<NewIp>| Ip {
            interface: ip.interface,
            address: ip.address,
            gateway: ip.gateway,
        };
        let mut interfaces: Vec<Interface> = plain(new.interfaces);
        for interface in &mut interfaces {
            interface.mac.make_ascii_lowercase();
        }
        let ips = new.ips.into_iter().map(ip).collect();
        Self { interfaces, ips, routes: plain(new.routes), dns: new.dns.0 }
    }
}

impl From<Old> for CniResult {
    fn from(old: Old) -> Self {
        let mut result = Self { dns: old.dns.0, ..Self::default() };
        for Object(half) in old.ip4.into_iter().chain(old.ip6) {
            result.ips.push(Ip { interface: None, address: half.ip, gateway: half.gateway });
            result.routes.extend(plain(half.routes));
        }
        result
    }
}

fn plain<T>(objects: Vec<Object<T>>) -> Vec<T> {
    objects.into_iter().map(|object| object.0).collect()
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An address; empty text, as some plugins write, is none.
pub(super) fn lenient_address<'de, D>(deserializer: D) -> Result<Option<IpAddr>, D::Error>
where
    D: Deserializer<'de>,
{
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A network. The host bits of an address in it are ignored, as the kernel does not keep it.
pub(super) fn network<'de, D>(deserializer: D) -> Result<IpNetwork, D::Error>
where
    D: Deserializer<'de>,
{
    let written = IpNetwork::deserialize(deserializer)?;
    IpNetwork::new(written.network(), written.prefix()).map_err(serde::de::Error::custom)
}
