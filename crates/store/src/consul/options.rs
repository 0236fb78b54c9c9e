//! Address, token and certificates for Consul, as its own tools read them from the environment.

use std::path::PathBuf;

use super::address::shown;
use crate::StoreError;

/// Consul's default address.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";

/// Address, token and certificates for Consul.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulOptions {
    /// `http://host:port`, `https://host:port`, `unix:///path`, or `host:port` for plain HTTP.
    pub address: String,
    /// The ACL token.
    pub token: Option<String>,
    /// The certificate authority that signed the server's certificate, PEM.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of this client's certificate, PEM.
    pub key_file: Option<PathBuf>,
}

impl ConsulOptions {
    /// Plain HTTP at `address`, without a token.
    pub fn at(address: impl Into<String>) -> Self {
        let (token, ca_file, cert_file, key_file) = (None, None, None, None);
        Self { address: address.into(), token, ca_file, cert_file, key_file }
    }

    /// The options in Consul's usual variables, read through `variable`: `CONSUL_HTTP_ADDR`,
    /// `..._SSL`, `..._TOKEN`, `..._TOKEN_FILE`, `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`,
    /// `CONSUL_CLIENT_KEY`.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StoreError> {
        let get = |name| variable(name).filter(|value| !value.is_empty());
        let mut address = get("CONSUL_HTTP_ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let tls = get("CONSUL_HTTP_SSL").is_some_and(|value| value == "true" || value == "1");
        if tls && !address.contains("://") {
            address = format!("https://{address}");
        }
        let token = match (get("CONSUL_HTTP_TOKEN"), get("CONSUL_HTTP_TOKEN_FILE")) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(&path).map_err(|error| StoreError::Options {
                    store: shown(&address),
                    option: "CONSUL_HTTP_TOKEN_FILE",
                    reason: format!("read {path}: {error}"),
                })?;
                Some(text.trim().to_owned())
            }
            (None, None) => None,
        };
        Ok(Self {
            address,
            token,
            ca_file: get("CONSUL_CACERT").map(PathBuf::from),
            cert_file: get("CONSUL_CLIENT_CERT").map(PathBuf::from),
            key_file: get("CONSUL_CLIENT_KEY").map(PathBuf::from),
        })
    }
}

/// Omits the token: options end up in logs.
impl std::fmt::Debug for ConsulOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = shown(&self.address);
        f.debug_struct("ConsulOptions").field("store", &store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_consul_variables_and_never_shows_the_token() {
        let options = ConsulOptions::from_env(|name| match name {
            "CONSUL_HTTP_ADDR" => Some("consul.example:8501".into()),
            "CONSUL_HTTP_SSL" => Some("true".into()),
            "CONSUL_HTTP_TOKEN" => Some("secret".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(options.address, "https://consul.example:8501");
        assert_eq!(options.token.as_deref(), Some("secret"));
        assert!(!format!("{options:?}").contains("secret"));
        assert_eq!(ConsulOptions::from_env(|_| None).unwrap().address, DEFAULT_ADDRESS);
    }

    #[test]
    fn a_token_file_that_is_missing_shows_no_password_of_the_address() {
        let error = ConsulOptions::from_env(|name| match name {
            "CONSUL_HTTP_ADDR" => Some("http://user:secret@198.18.0.9:8500".into()),
            "CONSUL_HTTP_TOKEN_FILE" => Some("/nonexistent/token".into()),
            _ => None,
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/token") && !error.contains("secret"), "{error}");
    }
}
