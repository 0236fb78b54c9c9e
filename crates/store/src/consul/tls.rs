//! TLS to Consul, with the configured authority only.
//!
//! The system's root certificates are not read on purpose: reading them takes longer than all the
//! rest of a plugin's work, and a Consul cluster signs its own certificates.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::ConsulOptions;
use crate::StoreError;

/// Connector with the certificates of `options`.
pub(super) fn connector(store: &str, options: &ConsulOptions) -> Result<TlsConnector, StoreError> {
    let refuse =
        |option, reason: String| StoreError::Options { store: store.to_owned(), option, reason };
    let Some(ca_file) = &options.ca_file else {
        let reason = "an https address needs the authority that signed the server's certificate";
        return Err(refuse("ca_file", reason.to_owned()));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file).map_err(|reason| refuse("ca_file", reason))? {
        roots.add(certificate).map_err(|error| refuse("ca_file", error.to_string()))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("ca_file", error.to_string()))?
        .with_root_certificates(roots);
    let config = match (&options.cert_file, &options.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert).map_err(|reason| refuse("cert_file", reason))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| refuse("key_file", unreadable(key, &error)))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| refuse("cert_file", error.to_string()))?
        }
        _ => return Err(refuse("cert_file", "it goes with key_file, and one is missing".into())),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = |error| unreadable(path, &error);
    CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)
}

/// The reason for which a file is not PEM. Some of the errors of the parser quote the file, which
/// may be a private key.
fn unreadable(path: &Path, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!("{path}: {error}"),
        pem::Error::NoItemsFound => format!("{path} holds nothing of the kind, in PEM"),
        _ => format!("{path} is not PEM: a section is damaged"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_key_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let secret = "c2VjcmV0";
        for content in [
            format!("-----BEGIN PRIVATE KEY{secret}"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n"),
            format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"),
            format!("-----BEGIN {secret}-----\n"),
            secret.to_owned(),
        ] {
            std::fs::write(&path, &content).unwrap();
            let error = PrivateKeyDer::from_pem_file(&path).unwrap_err();
            let shown = unreadable(&path, &error);
            assert!(shown.contains("key.pem") && !shown.contains(secret), "{content}: {shown}");
        }
    }
}
