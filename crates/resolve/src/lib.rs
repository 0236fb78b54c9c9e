//! Addresses of a host name, found without the C library.
//!
//! The plugins are linked statically, and `getaddrinfo(3)` of a static glibc loads the modules that
//! `/etc/nsswitch.conf` names, together with the host's own glibc. If that is not the release that
//! the plugin was linked with, the process dies (SIGFPE in the loaded C library with 2.36 and
//! 2.41). So this crate reads `/etc/hosts` and `/etc/resolv.conf` itself, and asks DNS servers.
//!
//! The order is fixed: address literals, `/etc/hosts`, `localhost`, DNS. Other sources of
//! `/etc/nsswitch.conf` (mDNS, LDAP, NIS) are not asked. systemd-resolved is, as the DNS server
//! that it is.
//!
//! - `hosts`: names of `/etc/hosts`.
//! - `search`: fully qualified names that a host name may mean.
//! - `server`: one question to one DNS server, over UDP or TCP.

mod hosts;
mod search;
mod server;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

use resolv_conf::{Config, ScopedIp};
use thiserror::Error;

use server::Answer;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// Time for the first answer of a server; each further round waits four times as long, up to
/// `options timeout:` of `resolv.conf`. The 5 s that resolv.conf(5) gives the first server already
/// are longer than a caller waits for a connection, so the second server would never be asked.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Most rounds over all servers, as in resolv.conf(5).
const MAX_ATTEMPTS: u32 = 5;

/// Reason that a host name has no addresses.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// Not a host name.
    #[error(
        "host name {host:?}: expected ASCII letters, digits, '-', '_' and '.', in labels of 1 to \
         63 characters; write an international name in its xn-- form"
    )]
    InvalidName {
        /// The name as it came.
        host: String,
    },

    /// A file that lists hosts or servers is there and cannot be read.
    #[error("host name {host}: read {}: {cause}", path.display())]
    Read {
        /// The name to resolve.
        host: String,
        /// `/etc/hosts` or `/etc/resolv.conf`.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },

    /// Every server that answered says that there is no such host.
    #[error(
        "host name {host}: no address in {HOSTS} or DNS (asked for {}); correct the name or use an \
         IP address", names.join(", ")
    )]
    NotFound {
        /// The name to resolve.
        host: String,
        /// Fully qualified names that were asked for.
        names: Vec<String>,
    },

    /// No server gave a usable answer.
    #[error(
        "host name {host}: no DNS server answered ({cause}); check \"nameserver\" in \
         {RESOLV_CONF}, add the host to {HOSTS} or use an IP address"
    )]
    NoAnswer {
        /// The name to resolve.
        host: String,
        /// Last failure: server and reason.
        cause: String,
    },
}

/// Addresses of `host`: an IP address, a name in `/etc/hosts`, or a name in DNS. IPv4 comes first.
///
/// An IP address opens no file. Takes as long as DNS does: up to `attempts` times `timeout` of
/// `resolv.conf` for each server and each search domain. The caller sets its own time limit.
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    Resolver::from_files(host, Path::new(HOSTS), Path::new(RESOLV_CONF))?.lookup(host).await
}

/// The sources of addresses, as one reading of the files gave them.
#[derive(Debug, Clone)]
pub struct Resolver {
    hosts: String,
    config: Config,
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Reads `hosts`, in the format of hosts(5), and `resolv_conf`, in that of resolv.conf(5), to
    /// look for `host`. A missing file is an empty one; lines that make no sense are ignored, as
    /// the C library does.
    pub fn from_files(host: &str, hosts: &Path, resolv_conf: &Path) -> Result<Self, ResolveError> {
        let hosts = String::from_utf8_lossy(&read(host, hosts)?).into_owned();
        let (mut config, _ignored) = Config::parse_with_errors(&read(host, resolv_conf)?);
        config.glibc_normalize();
        let servers = config.get_nameservers_or_local().iter().filter_map(socket_address).collect();
        Ok(Self { hosts, config, servers })
    }

    /// Replaces the servers of `resolv.conf`, which all listen on port 53.
    #[must_use]
    pub fn with_servers(mut self, servers: Vec<SocketAddr>) -> Self {
        self.servers = servers;
        self
    }

    /// Addresses of `host`, as [`lookup`] returns them.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let names = search::names(host, &self.config)
            .ok_or_else(|| ResolveError::InvalidName { host: host.into() })?;
        let listed = hosts::addresses(&self.hosts, host.trim_end_matches('.'));
        if !listed.is_empty() {
            return Ok(listed);
        }
        if is_localhost(host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let mut failure = None;
        for name in &names {
            match self.ask_all(name).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => return Ok(addresses),
                // The next search domain may be another server's, and that one in order.
                Err(cause) => failure = Some(cause),
            }
        }
        let host = host.to_owned();
        Err(match failure {
            Some(cause) => ResolveError::NoAnswer { host, cause },
            None => ResolveError::NotFound { host, names },
        })
    }

    /// Asks servers for a fully qualified name until one knows it or says that it does not exist.
    /// Returns no address in the latter case, and the last failure if all failed.
    async fn ask_all(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let mut servers = self.servers.clone();
        if self.config.rotate && !servers.is_empty() {
            let first = fastrand::usize(..servers.len());
            servers.rotate_left(first);
        }
        let longest = Duration::from_secs(self.config.timeout.into()).max(FIRST_WAIT);
        let mut wait = FIRST_WAIT;
        let mut failure = format!("{RESOLV_CONF} names none");
        for _ in 0..self.config.attempts.clamp(1, MAX_ATTEMPTS) {
            for &server in &servers {
                match server::ask(server, name, wait, &self.config).await {
                    Answer::Addresses(addresses) => return Ok(addresses),
                    Answer::Failed(cause) => failure = format!("{name} at {server}: {cause}"),
                }
            }
            wait = (wait * 4).min(longest);
        }
        Err(failure)
    }
}

/// Contents of a file; none if there is no such file.
fn read(host: &str, path: &Path) -> Result<Vec<u8>, ResolveError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        Err(cause) => Err(ResolveError::Read { host: host.into(), path: path.into(), cause }),
    }
}

/// Returns whether the name is the host itself, which RFC 6761 (section 6.3) keeps out of DNS.
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Address and port of a name server; `None` if it is link-local on an interface that is not there.
fn socket_address(server: &ScopedIp) -> Option<SocketAddr> {
    match server {
        ScopedIp::V4(ip) => Some((*ip, DNS_PORT).into()),
        ScopedIp::V6(ip, None) => Some((*ip, DNS_PORT).into()),
        ScopedIp::V6(ip, Some(scope)) => {
            let index = scope.parse().ok().or_else(|| interface_index(scope))?;
            Some(SocketAddrV6::new(*ip, DNS_PORT, 0, index).into())
        }
    }
}

fn interface_index(name: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(name).join("ifindex");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
