//! The node's configuration file, `weft.toml`.

mod fault;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use weft_model::node::VXLAN_PORT;
use weft_model::{ModelError, NodeName};
use weft_store::StoreSection;
pub use weft_store::{ConsulConfig, StoreConfig};

use crate::ClusterError;

/// Path of the file unless `WEFT_CONFIG` or `--config` names another.
pub const DEFAULT_PATH: &str = "/etc/weft/weft.toml";

/// Directory of reservations. A reboot empties `/run`, and ends all containers that hold one.
const DEFAULT_DATA_DIR: &str = "/run/weft";

/// Long enough that a restart of everything on a node brings no block back.
const DEFAULT_RELEASE_AFTER: Duration = Duration::from_secs(600);

/// Runtimes delete what they know of within seconds of a crash.
const DEFAULT_SWEEP_GRACE: Duration = Duration::from_secs(60);

/// The node's configuration, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The file that it is from; at the default path there may be none.
    pub path: PathBuf,
    /// The node's name in the cluster.
    pub node: NodeName,
    /// The interface that carries the VXLAN packets.
    pub underlay: Underlay,
    /// The UDP port to send and receive VXLAN on.
    pub port: u16,
    /// Directory of the node's own state.
    pub data_dir: PathBuf,
    /// The cluster store.
    pub store: StoreConfig,
    /// Time after which an idle block is given back to the cluster.
    pub release_after: Duration,
    /// Time after the end of a container at which its address is freed without a DEL.
    pub sweep_grace: Duration,
}

/// Selection of the underlay interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Underlay {
    /// The interface of the default route.
    DefaultRoute,
    /// The interface with this name.
    Interface(String),
    /// The interface with this address.
    Address(IpAddr),
}

/// The file as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFormat {
    node: Option<String>,
    underlay: Option<String>,
    port: Option<u16>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    store: StoreSection,
    #[serde(default)]
    agent: AgentFormat,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFormat {
    release_idle_after: Option<u64>,
    sweep_grace: Option<u64>,
}

impl NodeConfig {
    /// Reads the configuration from `path`, or else from the path in the variable `WEFT_CONFIG`, or
    /// else from the default path.
    ///
    /// An absent file at the default path means defaults. A file that somebody named must be there:
    /// a cluster's node that fell back to the single-node store would hand out other nodes'
    /// addresses.
    pub fn load(
        path: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ClusterError> {
        let is_argument = path.is_some();
        let named = path
            .map(Path::to_owned)
            .or_else(|| variable("WEFT_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        let refuse = |reason: String| ClusterError::Config { path: path.clone(), reason };
        let at = |config| Self { path: path.clone(), ..config };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map(at).map_err(refuse),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Self::parse("").map(at).map_err(refuse)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let otherwise = if is_argument {
                    "leave --config out"
                } else {
                    "unset the variable WEFT_CONFIG"
                };
                Err(refuse(format!(
                    "it does not exist; create it, or {otherwise} to use {DEFAULT_PATH}"
                )))
            }
            Err(error) => Err(refuse(format!("read it: {error}"))),
        }
    }

    /// An error names key and line, and holds no value: one may be a secret.
    fn parse(text: &str) -> Result<Self, String> {
        let file = toml::from_str(text).map_err(|error| fault::of_parser(text, &error))?;
        Self::complete(file).map_err(|fault| fault::of_value(text, &fault))
    }

    fn complete(file: FileFormat) -> Result<Self, String> {
        let node = match file.node {
            Some(name) => NodeName::new(name).map_err(|error| match error {
                ModelError::Name { reason, .. } => format!("node: {reason}"),
                ModelError::Key { .. } => "node cannot be used".to_owned(),
            })?,
            None => NodeName::new(host_name()?).map_err(|error| {
                format!("{error}; it is the host's: set `node` to a name of your choice")
            })?,
        };
        let underlay = match file.underlay {
            None => Underlay::DefaultRoute,
            Some(text) if text.trim().is_empty() => {
                return Err("underlay is empty: name an interface or one of its addresses, or \
                            leave the key out for the interface of the default route"
                    .into());
            }
            Some(text) => match text.parse() {
                Ok(address) => Underlay::Address(address),
                Err(_) => Underlay::Interface(text),
            },
        };
        let port = match file.port {
            Some(0) => return Err("port 0 cannot be used".into()),
            port => port.unwrap_or(VXLAN_PORT),
        };
        // Each program would resolve a relative one against a directory of its own.
        let data_dir = file.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        if !data_dir.is_absolute() {
            return Err("data_dir needs an absolute path".into());
        }
        Ok(Self {
            path: PathBuf::new(),
            node,
            underlay,
            port,
            data_dir,
            store: file.store.into_config()?,
            release_after: seconds(file.agent.release_idle_after, DEFAULT_RELEASE_AFTER),
            sweep_grace: seconds(file.agent.sweep_grace, DEFAULT_SWEEP_GRACE)
                .max(Duration::from_secs(1)),
        })
    }
}

fn seconds(value: Option<u64>, default: Duration) -> Duration {
    value.map_or(default, Duration::from_secs)
}

fn host_name() -> Result<String, String> {
    let name = nix::unistd::gethostname().map_err(|error| format!("read host name: {error}"))?;
    name.into_string().map_err(|name| format!("host name {} is not text", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        NodeConfig::parse(text).unwrap_err()
    }

    #[test]
    fn an_empty_file_means_one_node_with_the_local_store() {
        let config = NodeConfig::parse("").unwrap();
        assert_eq!(config.store, StoreConfig::Local { dir: "/var/lib/weft/store".into() });
        assert_eq!(config.underlay, Underlay::DefaultRoute);
        assert_eq!(config.data_dir, Path::new("/run/weft"));
        assert_eq!(config.port, 4789);
        assert_eq!(config.node.as_str(), host_name().unwrap());
    }

    #[test]
    fn reads_what_a_cluster_node_needs() {
        let config = NodeConfig::parse(
            "node = \"a\"\nunderlay = \"198.18.0.1\"\n[store]\ntype = \"consul\"\n\
             address = \"http://198.18.0.9:8500\"\nprefix = \"/weft/test/\"\n",
        )
        .unwrap();
        assert_eq!(config.node.as_str(), "a");
        assert_eq!(config.underlay, Underlay::Address("198.18.0.1".parse().unwrap()));
        let StoreConfig::Consul(consul) = config.store else { panic!("{:?}", config.store) };
        assert_eq!(consul.address.as_deref(), Some("http://198.18.0.9:8500"));
        assert_eq!(consul.prefix, "weft/test");
        let config = NodeConfig::parse("underlay = \"eth1\"").unwrap();
        assert_eq!(config.underlay, Underlay::Interface("eth1".into()));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(refusal("nod = \"a\"").contains("nod"));
        assert!(refusal("node = \"a b\"").contains("line 1: node: only letters, digits"));
        assert!(refusal("[store]\ntype = \"etc\"").contains("line 2: store.type"));
        assert!(refusal("[store]\ntoken = \"x\"").contains("store.token"));
        assert!(refusal("[store]\naddress = \"here\"").contains("absolute path"));
        assert!(refusal("[store]\ntype = \"consul\"\nprefix = \"/\"").contains("store.prefix"));
        assert!(refusal("port = 0").contains("port 0"));
        assert!(refusal("underlay = \"\"").contains("underlay is empty"));
        assert!(refusal("data_dir = \"state\"").contains("data_dir needs an absolute path"));
        assert!(refusal("data_dir = \"\"").contains("data_dir needs an absolute path"));
    }

    #[test]
    fn options_of_the_store_that_cannot_be_used_are_faults_of_the_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("weft.toml");
        for (line, reason) in [
            ("address = \"ftp://x\"", "expected http://, https:// or unix://"),
            ("address = \"https://x\"", "ca_file"),
            ("token = \"a b\"", "characters that no token has"),
        ] {
            std::fs::write(&path, format!("[store]\ntype = \"consul\"\n{line}\n")).unwrap();
            let config = NodeConfig::load(Some(&path), |_| None).unwrap();
            let error = crate::Cluster::connect(&config, |_| None).err().unwrap();
            assert!(error.is_configuration(), "{error}");
            let error = error.to_string();
            let start = format!("node configuration {}: ", path.display());
            assert!(error.starts_with(&start) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let missing = Path::new("/nonexistent/weft.toml");
        let error = NodeConfig::load(Some(missing), |_| None).unwrap_err().to_string();
        assert!(error.contains("create it, or leave --config out"), "{error}");
        let variable = |name: &str| (name == "WEFT_CONFIG").then(|| missing.display().to_string());
        let error = NodeConfig::load(None, variable).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/weft.toml"), "{error}");
        assert!(error.contains("unset the variable WEFT_CONFIG"), "{error}");
    }
}
