//! The keys as they arrive, before they mean anything.
//!
//! Each key is read by itself, so that a wrong value is reported with its key: "invalid type:
//! string" says nothing to somebody who looks at a file of fifty lines.

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use weft_model::network::Route;

use crate::error::NetConfError;

/// The top of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) plugin: Option<String>,
    pub(crate) vni: Option<u32>,
    pub(crate) is_gateway: Option<bool>,
    pub(crate) ip_masq: Option<bool>,
    pub(crate) mtu: Option<u32>,
    pub(crate) hairpin_mode: Option<bool>,
    pub(crate) ipam: Ipam,
    /// Ranges that the runtime gives.
    pub(crate) given: Vec<Vec<Range>>,
}

/// The `ipam` section.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    pub(crate) first: Option<Range>,
    pub(crate) ranges: Vec<Vec<Range>>,
    pub(crate) exclude: Vec<String>,
    pub(crate) block_bits: Option<u8>,
    pub(crate) routes: Option<Vec<Route>>,
    pub(crate) sticky: Option<String>,
    pub(crate) sticky_seconds: Option<u64>,
}

/// A subnet and the part of it to hand out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    pub(crate) subnet: String,
    pub(crate) gateway: Option<String>,
    pub(crate) start: Option<String>,
    pub(crate) end: Option<String>,
}

impl Keys {
    pub(crate) fn read(config: &Map<String, Value>) -> Result<Self, NetConfError> {
        let ipam = match get(config, "ipam") {
            None => Ipam::default(),
            Some(Value::Object(ipam)) => Ipam::read(ipam)?,
            Some(other) => return Err(wrong("ipam", other, "an object")),
        };
        let given = match get(config, "runtimeConfig") {
            None => vec![],
            Some(Value::Object(given)) => range_sets(given, "ipRanges")?,
            Some(other) => return Err(wrong("runtimeConfig", other, "an object")),
        };
        Ok(Self {
            plugin: typed(config, "type", "a string")?,
            vni: typed(config, "vni", "a number from 1 to 16777215")?,
            is_gateway: typed(config, "isGateway", "true or false")?,
            ip_masq: typed(config, "ipMasq", "true or false")?,
            mtu: typed(config, "mtu", "a number of bytes")?,
            hairpin_mode: typed(config, "hairpinMode", "true or false")?,
            ipam,
            given,
        })
    }
}

/// The lists of ranges under `key`. go-cni leaves the inner lists out: each range is one then.
fn range_sets(
    object: &Map<String, Value>,
    key: &'static str,
) -> Result<Vec<Vec<Range>>, NetConfError> {
    let expected = "a list of lists of ranges";
    let sets: Vec<Value> = typed(object, key, expected)?.unwrap_or_default();
    let range = |range: &Value| {
        let wrong = || wrong(key, range, "an object with a subnet");
        Range::read(range.as_object().ok_or_else(wrong)?)?.ok_or_else(wrong)
    };
    let set = |set: &Value| match set {
        Value::Array(set) => set.iter().map(range).collect(),
        Value::Object(_) if key == "ipRanges" => Ok(vec![range(set)?]),
        other => Err(wrong(key, other, expected)),
    };
    sets.iter().map(set).collect()
}

impl Ipam {
    fn read(ipam: &Map<String, Value>) -> Result<Self, NetConfError> {
        let first = Range::read(ipam)?;
        Ok(Self {
            first,
            ranges: range_sets(ipam, "ranges")?,
            exclude: typed(ipam, "exclude", "a list of addresses and subnets")?.unwrap_or_default(),
            block_bits: typed(ipam, "blockBits", "a number from 0 to 16")?,
            routes: routes(ipam)?,
            sticky: typed(ipam, "sticky", "a string")?.filter(|by: &String| !by.is_empty()),
            sticky_seconds: typed(ipam, "stickySeconds", "a number of seconds")?,
        })
    }
}

/// The routes. A destination is a network: its host bits are ignored, as the kernel does
/// not keep it.
fn routes(ipam: &Map<String, Value>) -> Result<Option<Vec<Route>>, NetConfError> {
    let expected = "a list of routes, each with a dst like 0.0.0.0/0";
    // As objects: serde would take a list for the fields of a route in their order.
    let Some(list) = typed::<Vec<Map<String, Value>>>(ipam, "routes", expected)? else {
        return Ok(None);
    };
    let route = |object: Map<String, Value>| {
        let value = Value::Object(object);
        let read: Option<Route> = Route::deserialize(&value).ok();
        let route = read.and_then(|route| {
            let dst = IpNetwork::new(route.dst.network(), route.dst.prefix()).ok()?;
            Some(Route { dst, ..route })
        });
        route.ok_or_else(|| wrong("routes", &value, expected))
    };
    list.into_iter().map(route).collect::<Result<_, _>>().map(Some)
}

impl Range {
    fn read(object: &Map<String, Value>) -> Result<Option<Self>, NetConfError> {
        let address =
            |key| typed::<String>(object, key, "an address").map(|a| a.filter(|a| !a.is_empty()));
        let (gateway, start, end) =
            (address("gateway")?, address("rangeStart")?, address("rangeEnd")?);
        let subnet = typed::<String>(object, "subnet", "a subnet like 10.9.0.0/16")?;
        match subnet.filter(|subnet| !subnet.is_empty()) {
            Some(subnet) => Ok(Some(Self { subnet, gateway, start, end })),
            None => {
                let stray = [("gateway", gateway), ("rangeStart", start), ("rangeEnd", end)];
                match stray.into_iter().find_map(|(key, value)| Some((key, value?))) {
                    Some((key, value)) => Err(NetConfError(format!(
                        "{key} {value}: the subnet it belongs to is missing"
                    ))),
                    None => Ok(None),
                }
            }
        }
    }
}

/// The value of `key`; Go's JSON decoder, which wrote and reads most configurations, takes any
/// case.
fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let value = object.get(key).or_else(|| {
        object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    });
    value.filter(|value| !value.is_null())
}

fn typed<T: DeserializeOwned>(
    object: &Map<String, Value>,
    key: &'static str,
    expected: &str,
) -> Result<Option<T>, NetConfError> {
    let Some(value) = get(object, key) else { return Ok(None) };
    serde_json::from_value(value.clone()).map(Some).map_err(|_| wrong(key, value, expected))
}

fn wrong(key: &str, value: &Value, expected: &str) -> NetConfError {
    NetConfError(format!("{key} {value}: expected {expected}"))
}
