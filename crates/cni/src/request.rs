//! A call: parameters and configuration together, checked.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::env::{Environment, Verb};
use crate::error::{CniError, code};
use crate::object::Object;
use crate::result::{CniResult, Dns};
use crate::version::Version;

/// A call of a plugin.
#[derive(Debug, Clone)]
pub struct Request {
    environment: Environment,
    version: Version,
    name: String,
    config: Map<String, Value>,
    raw: Vec<u8>,
}

/// An attachment as GC names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentId {
    /// The sandbox.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

/// The attachments that the runtime knows, on GC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAttachments {
    /// It did not say.
    Absent,
    /// These and no others. A Go runtime writes an empty list as `null`.
    Listed(Vec<AttachmentId>),
}

impl Request {
    /// Checks a configuration against the rules that all plugins share.
    pub fn new(environment: Environment, stdin: Vec<u8>) -> Result<Self, CniError> {
        let config: Value = serde_json::from_slice(&stdin).map_err(|error| {
            let msg = format!("the network configuration on standard input is not JSON: {error}");
            CniError::new(code::DECODING_FAILURE, msg)
        })?;
        let Value::Object(config) = config else {
            let msg = "the network configuration on standard input is not a JSON object";
            return Err(CniError::new(code::DECODING_FAILURE, msg));
        };
        let version = version(&config)?;
        let name = name(&config)?;
        Ok(Self { environment, version, name, config, raw: stdin })
    }

    /// The same call with another verb.
    #[must_use]
    pub fn with_verb(&self, verb: Verb) -> Self {
        Self { environment: self.environment.with_verb(verb), ..self.clone() }
    }

    /// The runtime's request.
    pub fn verb(&self) -> Verb {
        self.environment.verb()
    }

    /// The parameters.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The version that the caller speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The configuration's `name`.
    pub fn network_name(&self) -> &str {
        &self.name
    }

    /// The configuration.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The configuration as it came, to be passed on.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// `CNI_CONTAINERID`.
    pub fn container_id(&self) -> &str {
        self.environment.container_id()
    }

    /// `CNI_IFNAME`.
    pub fn ifname(&self) -> &str {
        self.environment.ifname()
    }

    /// `CNI_NETNS`, unless it is empty.
    pub fn netns(&self) -> Option<&str> {
        self.environment.netns()
    }

    /// The IPAM plugin that the configuration names. An empty `ipam` section is none.
    pub fn ipam_type(&self) -> Result<Option<String>, CniError> {
        let Some(ipam) = get(&self.config, "ipam") else { return Ok(None) };
        let Value::Object(ipam) = ipam else { return Err(wrong("ipam", ipam, "an object")) };
        Ok(typed::<String>(ipam, "type", "a string")?.filter(|plugin| !plugin.is_empty()))
    }

    /// `prevResult`, in whatever version it is.
    pub fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        let Some(value) = get(&self.config, "prevResult") else { return Ok(None) };
        CniResult::parse(value, self.version)
            .map(Some)
            .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("prevResult: {error}")))
    }

    /// `dns` of the configuration.
    pub fn dns(&self) -> Result<Dns, CniError> {
        let expected = "an object with nameservers, domain, search, options";
        Ok(typed::<Object<Dns>>(&self.config, "dns", expected)?.unwrap_or_default().0)
    }

    /// A key of `runtimeConfig`, which Go programs may write in another case.
    pub fn runtime_config(&self, key: &str) -> Result<Option<&Value>, CniError> {
        let section = section(&self.config, "runtimeConfig", "runtimeConfig")?;
        Ok(section.and_then(|section| get(section, key)))
    }

    /// The addresses that the caller asks for, each as `address` or `address/prefix`: those of
    /// `runtimeConfig.ips`, else those of `args.cni.ips`, else those of `IP` in `CNI_ARGS`.
    pub fn requested_ips(&self) -> Result<Vec<String>, CniError> {
        let by_args = self.args_cni("ips")?;
        for (key, value) in
            [("runtimeConfig.ips", self.runtime_config("ips")?), ("args.cni.ips", by_args)]
        {
            let Some(value) = value else { continue };
            let list: Vec<String> = serde_json::from_value(value.clone())
                .map_err(|_| wrong(key, value, "a list of addresses"))?;
            if !list.is_empty() {
                return Ok(list);
            }
        }
        let by_environment = self.environment.arg("IP").unwrap_or_default();
        Ok(by_environment
            .split(',')
            .map(str::trim)
            .filter(|ip| !ip.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// The MAC that the caller asks for: that of `runtimeConfig.mac`, else that of `args.cni.mac`,
    /// else that of `MAC` in `CNI_ARGS`.
    pub fn requested_mac(&self) -> Result<Option<String>, CniError> {
        let by_args = self.args_cni("mac")?;
        for (key, value) in
            [("runtimeConfig.mac", self.runtime_config("mac")?), ("args.cni.mac", by_args)]
        {
            match value {
                None => {}
                Some(Value::String(mac)) if mac.is_empty() => {}
                Some(Value::String(mac)) => return Ok(Some(mac.clone())),
                Some(other) => return Err(wrong(key, other, "a MAC address")),
            }
        }
        Ok(self.environment.arg("MAC").map(str::to_owned))
    }

    /// The stable identity of the container, by which it keeps its address: `args.cni.sticky`.
    pub fn sticky_identity(&self) -> Result<Option<String>, CniError> {
        match self.args_cni("sticky")? {
            None => Ok(None),
            Some(Value::String(identity)) => {
                Ok(Some(identity.clone()).filter(|identity| !identity.is_empty()))
            }
            Some(other) => Err(wrong("args.cni.sticky", other, "a string")),
        }
    }

    /// The attachments that the runtime knows. The specification's key comes before the one that
    /// libcni wrote by mistake for a while.
    pub fn valid_attachments(&self) -> Result<ValidAttachments, CniError> {
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some((key, value)) =
            keys.into_iter().find_map(|key| Some((key, self.config.get(key)?)))
        else {
            return Ok(ValidAttachments::Absent);
        };
        let list = match value {
            Value::Null => &vec![],
            Value::Array(list) => list,
            other => return Err(wrong(key, other, "a list of attachments")),
        };
        let mut valid = vec![];
        for item in list {
            let text = |name: &str| item.as_object().and_then(|o| get(o, name)?.as_str());
            match (text("containerID"), text("ifname")) {
                (Some(container_id), Some(ifname)) => valid.push(AttachmentId {
                    container_id: container_id.to_owned(),
                    ifname: ifname.to_owned(),
                }),
                _ => return Err(wrong(key, item, "an object with containerID and ifname")),
            }
        }
        Ok(ValidAttachments::Listed(valid))
    }

    fn args_cni(&self, key: &str) -> Result<Option<&Value>, CniError> {
        let Some(args) = section(&self.config, "args", "args")? else { return Ok(None) };
        Ok(section(args, "cni", "args.cni")?.and_then(|section| get(section, key)))
    }
}

/// The version that a configuration is of; of none it is 0.1.0.
fn version(config: &Map<String, Value>) -> Result<Version, CniError> {
    let text = match config.get("cniVersion") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(other) => return Err(wrong("cniVersion", other, "a string")),
    };
    text.parse().map_err(|_| {
        CniError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions")
            .with_details(format!("config is {text:?}, plugin supports {:?}", Version::supported()))
    })
}

fn name(config: &Map<String, Value>) -> Result<String, CniError> {
    let name = match get(config, "name") {
        None => "",
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong("name", other, "a string")),
    };
    if name.is_empty() {
        let msg = "the network configuration has no `name`";
        return Err(CniError::new(code::INVALID_CONFIG, msg));
    }
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !valid {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!(
                "name {name:?}: a network's name begins with a letter or digit and goes on with \
                 those, '_', '.' or '-'"
            ),
        ));
    }
    Ok(name.to_owned())
}

/// The value of `key` in any case; `null` counts as absent.
fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let value = object.get(key).or_else(|| {
        object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    });
    value.filter(|value| !value.is_null())
}

/// The object under `key`, whose full name is for people.
fn section<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    name: &str,
) -> Result<Option<&'a Map<String, Value>>, CniError> {
    match get(object, key) {
        None => Ok(None),
        Some(Value::Object(section)) => Ok(Some(section)),
        Some(other) => Err(wrong(name, other, "an object")),
    }
}

fn typed<T: DeserializeOwned>(
    object: &Map<String, Value>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, CniError> {
    let Some(value) = get(object, key) else { return Ok(None) };
    serde_json::from_value(value.clone()).map(Some).map_err(|_| wrong(key, value, expected))
}

fn wrong(key: &str, value: &Value, expected: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("{key} {value}: expected {expected}"))
}

#[cfg(test)]
mod tests;
