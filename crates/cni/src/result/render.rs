//! Results as each version writes them.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{CniResult, Interface, Ip, Route};
use crate::version::Version;

impl CniResult {
    /// The result in the shape of `version`. Versions before 0.3.0 have room for one address of
    /// each family; a result without any cannot be said in them.
    pub fn render(&self, version: Version) -> Result<Value, String> {
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.render_old(&mut object)?;
        } else {
            let interfaces = self.interfaces.iter().map(|i| value(&for_version(i, version)));
            insert_list(&mut object, "interfaces", interfaces.collect());
            insert_list(
                &mut object,
                "ips",
                self.ips.iter().map(|ip| render_ip(ip, version)).collect(),
            );
            let routes = self.routes.iter().map(|route| render_route(route, version));
            insert_list(&mut object, "routes", routes.collect());
        }
        object.insert("dns".into(), value(&self.dns));
        Ok(Value::Object(object))
    }

    fn render_old(&self, object: &mut Map<String, Value>) -> Result<(), String> {
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == v4) else { continue };
            let mut half = Map::new();
            half.insert("ip".into(), ip.address.to_string().into());
            if let Some(gateway) = ip.gateway {
                half.insert("gateway".into(), gateway.to_string().into());
            }
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == v4);
            let routes = routes.map(|route| value(&Route::new(route.dst, route.gw)));
            insert_list(&mut half, "routes", routes.collect());
            object.insert(key.into(), half.into());
        }
        if object.contains_key("ip4") || object.contains_key("ip6") {
            return Ok(());
        }
        Err("cannot convert: no valid IP addresses".into())
    }
}

fn insert_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(key.into(), list.into());
    }
}

fn for_version(interface: &Interface, version: Version) -> Interface {
    if version >= Version::V1_1_0 {
        return interface.clone();
    }
    let Interface { name, mac, sandbox, .. } = interface.clone();
    Interface { name, mac, sandbox, ..Interface::default() }
}

fn render_ip(ip: &Ip, version: Version) -> Value {
    let mut object = Map::new();
    if version < Version::V1_0_0 {
        let family = if ip.address.is_ipv4() { "4" } else { "6" };
        object.insert("version".into(), family.into());
    }
    if let Some(interface) = ip.interface {
        object.insert("interface".into(), json!(interface));
    }
    object.insert("address".into(), ip.address.to_string().into());
    if let Some(gateway) = ip.gateway {
        object.insert("gateway".into(), gateway.to_string().into());
    }
    object.into()
}

fn render_route(route: &Route, version: Version) -> Value {
    if version >= Version::V1_1_0 {
        return value(route);
    }
    value(&Route::new(route.dst, route.gw))
}

/// Plain structs of strings and numbers always have a JSON form.
fn value<T: Serialize>(plain: &T) -> Value {
    serde_json::to_value(plain).unwrap_or_default()
}
