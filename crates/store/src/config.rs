//! The `[store]` section of `weft.toml`, and opening the store that it names.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::consul::address::shown;
use crate::{ConsulOptions, ConsulStore, LocalStore, Store, StoreError};

/// Directory of the embedded store by default. Networks outlast a reboot.
const DEFAULT_LOCAL_STORE: &str = "/var/lib/weft/store";

const DEFAULT_PREFIX: &str = "weft/v1";

/// A store to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// The embedded store of a single node.
    Local {
        /// The directory of its file.
        dir: PathBuf,
    },
    /// Consul.
    Consul(ConsulConfig),
}

/// Address, token and certificates for Consul. An absent value is taken from Consul's usual
/// environment variables.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ConsulConfig {
    /// Its HTTP address.
    pub address: Option<String>,
    /// The ACL token.
    pub token: Option<String>,
    /// The certificate authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate.
    pub cert_file: Option<PathBuf>,
    /// The key of this client's certificate.
    pub key_file: Option<PathBuf>,
    /// The beginning of all keys, without slashes at the ends.
    pub prefix: String,
}

/// The `[store]` section as written. An absent section is the local store.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    #[serde(rename = "type", default)]
    kind: StoreKind,
    address: Option<String>,
    prefix: Option<String>,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    #[default]
    Local,
    Consul,
}

impl StoreSection {
    /// Checks the section and fills in defaults. An error begins with the key, and holds no value:
    /// one may be a secret.
    pub fn into_config(self) -> Result<StoreConfig, String> {
        match self.kind {
            StoreKind::Local => self.into_local(),
            StoreKind::Consul => self.into_consul(),
        }
    }

    fn into_local(self) -> Result<StoreConfig, String> {
        let for_consul = [
            ("prefix", self.prefix.is_some()),
            ("token", self.token.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
        ];
        if let Some((key, _)) = for_consul.iter().find(|(_, set)| *set) {
            return Err(format!("store.{key} is set, but store.type is \"local\""));
        }
        let dir = self.address.map_or_else(|| DEFAULT_LOCAL_STORE.into(), PathBuf::from);
        if !dir.is_absolute() {
            let why = "the local store, which is used unless `type` names another, needs an \
                       absolute path";
            return Err(format!("store.address: {why}"));
        }
        Ok(StoreConfig::Local { dir })
    }

    fn into_consul(self) -> Result<StoreConfig, String> {
        let prefix = self.prefix.unwrap_or_else(|| DEFAULT_PREFIX.into());
        let prefix = prefix.trim_matches('/').to_owned();
        if prefix.is_empty() {
            return Err("store.prefix must not be empty".into());
        }
        Ok(StoreConfig::Consul(ConsulConfig {
            address: self.address,
            token: self.token,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            prefix,
        }))
    }
}

/// Opens the store of `config`. Environment variables are read through `variable`. No connection is
/// made yet.
pub fn open(
    config: &StoreConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config {
        StoreConfig::Local { dir } => Arc::new(LocalStore::new(dir)),
        StoreConfig::Consul(consul) => {
            let mut options = ConsulOptions::from_env(variable)?;
            if let Some(address) = &consul.address {
                options.address.clone_from(address);
            }
            options.token = consul.token.clone().or(options.token);
            options.ca_file = consul.ca_file.clone().or(options.ca_file);
            options.cert_file = consul.cert_file.clone().or(options.cert_file);
            options.key_file = consul.key_file.clone().or(options.key_file);
            Arc::new(ConsulStore::new(&options, &consul.prefix)?)
        }
    })
}

/// Omits the token: configurations end up in logs.
impl fmt::Debug for ConsulConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulConfig")
            .field("store", &self.address.as_deref().map(shown))
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Omits the token.
impl fmt::Debug for StoreSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSection")
            .field("type", &self.kind)
            .field("store", &self.address.as_deref().map(shown))
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<StoreSection, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn config(text: &str) -> Result<StoreConfig, String> {
        section(text).and_then(StoreSection::into_config)
    }

    #[test]
    fn empty_section_is_the_local_store() {
        let store = config("").unwrap();
        assert_eq!(store, StoreConfig::Local { dir: "/var/lib/weft/store".into() });
        let store = open(&store, |_| None).unwrap();
        assert_eq!(store.describe(), "local store in /var/lib/weft/store");
    }

    #[test]
    fn file_takes_precedence_over_environment() {
        let variable = |name: &str| {
            let value = match name {
                "CONSUL_HTTP_ADDR" => "http://198.18.0.8:8500",
                "CONSUL_HTTP_TOKEN" => "from the environment\n",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let text = "type = \"consul\"\naddress = \"http://198.18.0.9:8500\"\ntoken = \"x\"\n";
        let named = config(&format!("{text}prefix = \"/weft/test/\"")).unwrap();
        let StoreConfig::Consul(consul) = &named else { panic!("{named:?}") };
        assert_eq!(consul.prefix, "weft/test");
        let store = open(&named, variable).unwrap();
        assert_eq!(store.describe(), "Consul at http://198.18.0.9:8500");
        // The token of the environment is not valid, so it was not ignored.
        let error = open(&config("type = \"consul\"").unwrap(), variable).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("token of the Consul at http://198.18.0.8:8500"), "{text}");
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        let refusal = |text| config(text).unwrap_err();
        assert!(refusal("type = \"etcd\"").contains("etcd"));
        assert!(refusal("tokn = \"x\"").contains("tokn"));
        assert!(refusal("token = \"x\"").contains("store.token"));
        assert!(refusal("address = \"here\"").contains("absolute path"));
        assert!(refusal("type = \"consul\"\nprefix = \"/\"").contains("store.prefix"));
    }

    #[test]
    fn debug_output_never_shows_the_token() {
        let text = "type = \"consul\"\ntoken = \"secret\"";
        let shown = format!("{:?} {:?}", section(text).unwrap(), config(text).unwrap());
        assert!(shown.contains("weft/v1") && !shown.contains("secret"), "{shown}");
    }
}
