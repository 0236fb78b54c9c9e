//! One HTTP request to Consul and its reply.
//!
//! Short requests share a connection while it lives; a blocking query gets one of its own, with
//! keepalive. Proxy variables of the environment are ignored: container runtimes often have them
//! set for pulling images, and there is no proxy between a node and its Consul.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{authority, is_uuid, shown};
use super::{ConsulOptions, TIMEOUT, tls};
use crate::StoreError;

/// Timeout of the lookup of a name: some DNS servers may have to be asked in vain.
const NAME_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a connection to one of several addresses of a name.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(300);

/// Timeout of a connection attempt. Consul is on this machine or in this data centre.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest idle time after which a connection is used again. A server that went away meanwhile
/// leaves one that looks alive until a request is lost on it, and a write that may have arrived is
/// not repeated.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// A peer that acknowledges nothing for so long is dead. Without it, a host that lost power or a
/// path that drops packets ends a blocking query only when the query's own time is over, after a
/// minute.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time before the first keepalive probe, and time between two.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// A new connection that is closed within so long was refused.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Characters that are not escaped in a path; `/` separates the segments of a key.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// Escapes a key for a path.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Address of Consul, with the means to reach it.
enum Endpoint {
    Tcp { authority: String },
    Tls { authority: String, name: ServerName<'static>, connector: TlsConnector },
    Unix(PathBuf),
}

/// A client of one Consul agent.
pub(super) struct Client {
    endpoint: Endpoint,
    /// The store, for people.
    store: String,
    token: Option<String>,
    idle: Mutex<Option<Idle>>,
}

/// A connection, and the time since when it is unused.
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Idle {
    fn new(sender: SendRequest<Full<Bytes>>) -> Self {
        Self { sender, since: Instant::now() }
    }

    /// The connection, if it was used recently and is open.
    fn fresh(self) -> Option<SendRequest<Full<Bytes>>> {
        let fresh = self.since.elapsed() < IDLE_LIMIT && !self.sender.is_closed();
        fresh.then_some(self.sender)
    }
}

/// A request.
pub(super) struct Call {
    method: Method,
    path: String,
    body: Vec<u8>,
    timeout: Duration,
    blocks: bool,
}

/// A reply, with its whole body.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// `X-Consul-Index`.
    pub(super) index: Option<u64>,
    /// `X-Consul-Results-Filtered-By-ACLs` (Consul 1.12 and later): entries are missing that the
    /// token may not read.
    pub(super) is_filtered: bool,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: vec![], timeout: TIMEOUT, blocks: false }
    }

    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Makes it a blocking query, which stays open: it gets a connection of its own, with
    /// keepalive.
    pub(super) fn blocking(self) -> Self {
        Self { blocks: true, ..self }
    }
}

impl Reply {
    /// The error for a reply with a status other than those expected. `right` names the right that
    /// the request needs.
    pub(super) fn unexpected(&self, store: &str, right: String) -> StoreError {
        let store = store.to_owned();
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim().chars().take(300).collect::<String>();
        match self.status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                StoreError::Denied { store, right, cause: text }
            }
            StatusCode::PAYLOAD_TOO_LARGE => StoreError::TooLarge { store, what: text },
            // No leader, an expired session, a lost RPC: the server's state of the moment.
            status if status.is_server_error() => StoreError::Unreachable { store, cause: text },
            StatusCode::TOO_MANY_REQUESTS => {
                StoreError::Unreachable { store, cause: refused(&text) }
            }
            status => {
                StoreError::Unexpected { store, answer: format!("{} {text}", status.as_u16()) }
            }
        }
    }
}

impl Client {
    pub(super) fn new(options: &ConsulOptions) -> Result<Self, StoreError> {
        let address = options.address.trim_end_matches('/').to_owned();
        let store = shown(&address);
        let refuse = |reason: &str| StoreError::Options {
            store: store.clone(),
            option: "address",
            reason: reason.to_owned(),
        };
        if address.contains('@') {
            return Err(refuse("it must not hold a user or a password; set a token instead"));
        }
        if is_uuid(&address) {
            return Err(refuse("it has the form of a token, which belongs into store.token"));
        }
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", &address));
        let endpoint = match scheme {
            "unix" => Endpoint::Unix(rest.into()),
            "http" => Endpoint::Tcp {
                authority: authority(rest, 80).ok_or_else(|| refuse("expected host:port"))?,
            },
            "https" => {
                let authority = authority(rest, 443).ok_or_else(|| refuse("expected host:port"))?;
                let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|_| refuse("the host is neither a name nor an address"))?;
                let connector = tls::connector(&store, options)?;
                Endpoint::Tls { authority, name, connector }
            }
            _ => return Err(refuse("expected http://, https:// or unix://")),
        };
        let token = options.token.clone().filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let reason = "it has characters that no token has".to_owned();
            return Err(StoreError::Options { store, option: "token", reason });
        }
        Ok(Self { endpoint, store, token, idle: Mutex::new(None) })
    }

    pub(super) fn describe(&self) -> String {
        self.store.clone()
    }

    /// Sends the request and waits for the whole reply.
    pub(super) async fn send(&self, call: Call) -> Result<Reply, StoreError> {
        match timeout(call.timeout, self.attempt(&call)).await {
            Ok(reply) => reply.map(|reply| self.without_token(reply)),
            Err(_) => {
                let waited = format!("no answer within {:.1} s", call.timeout.as_secs_f64());
                Err(self.unreachable(waited))
            }
        }
    }

    /// The reply, fit to be quoted: a refusal that repeats the token, as proxies do that show what
    /// they were sent, does so no more.
    fn without_token(&self, reply: Reply) -> Reply {
        let Some(token) = self.token.as_ref().filter(|_| !reply.status.is_success()) else {
            return reply;
        };
        let text = String::from_utf8_lossy(&reply.body).replace(token, "<token>");
        Reply { body: text.into_bytes().into(), ..reply }
    }

    async fn attempt(&self, call: &Call) -> Result<Reply, StoreError> {
        let idle = if call.blocks { None } else { self.idle.lock().await.take() };
        if let Some(mut sender) = idle.and_then(Idle::fresh) {
            match self.exchange(&mut sender, call).await {
                Ok(reply) => {
                    *self.idle.lock().await = Some(Idle::new(sender));
                    return Ok(reply);
                }
                // The server closed the idle connection before the request was on its way.
                Err(error) if error.is_canceled() || call.method == Method::GET => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
        let mut sender = self.connect(call.blocks).await?;
        let begun = Instant::now();
        let reply = self.exchange(&mut sender, call).await;
        let reply = reply.map_err(|error| {
            if begun.elapsed() < AT_ONCE {
                self.unreachable(refused(&error.to_string()))
            } else {
                self.broken(&error)
            }
        })?;
        if !call.blocks {
            *self.idle.lock().await = Some(Idle::new(sender));
        }
        Ok(reply)
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        call: &Call,
    ) -> Result<Reply, hyper::Error> {
        sender.ready().await?;
        let host = match &self.endpoint {
            Endpoint::Tcp { authority } | Endpoint::Tls { authority, .. } => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::new(Full::new(Bytes::from(call.body.clone())));
        *request.method_mut() = call.method.clone();
        // Paths are made of escaped keys and constants, and tokens were checked.
        if let Ok(uri) = call.path.parse() {
            *request.uri_mut() = uri;
        }
        if let Ok(host) = host.parse() {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(token) = self.token.as_ref().and_then(|token| token.parse().ok()) {
            request.headers_mut().insert("x-consul-token", token);
        }
        let response = sender.send_request(request).await?;
        let status = response.status();
        let index = response.headers().get("x-consul-index");
        let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
        let is_filtered = is_filtered(response.headers());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply { status, index, is_filtered, body })
    }

    async fn connect(&self, keepalive: bool) -> Result<SendRequest<Full<Bytes>>, StoreError> {
        let connecting = async {
            match &self.endpoint {
                Endpoint::Unix(path) => self.open(UnixStream::connect(path).await).await,
                Endpoint::Tcp { authority } => {
                    self.open(connect_tcp(authority, keepalive).await).await
                }
                Endpoint::Tls { authority, name, connector } => {
                    let stream = connect_tcp(authority, keepalive).await;
                    let stream = stream.map_err(|error| self.unconnected(error))?;
                    self.open(connector.connect(name.clone(), stream).await).await
                }
            }
        };
        // The name and each of its addresses have limits of their own.
        match timeout(NAME_TIMEOUT + 2 * CONNECT_TIMEOUT, connecting).await {
            Ok(sender) => sender,
            Err(_) => Err(self.unconnected("none in time")),
        }
    }

    /// Begins HTTP on a stream.
    async fn open<S>(
        &self,
        stream: std::io::Result<S>,
    ) -> Result<SendRequest<Full<Bytes>>, StoreError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = stream.map_err(|error| self.unconnected(error))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| self.unconnected(error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("connection to Consul ended: {error}");
            }
        });
        Ok(sender)
    }

    /// The error of a connection that ended before the reply was there.
    fn broken(&self, error: &hyper::Error) -> StoreError {
        self.unreachable(format!("the connection ended before the answer came ({error})"))
    }

    /// The error of a connection that does not come about: whatever the cause, Consul is down or
    /// elsewhere.
    fn unconnected(&self, cause: impl fmt::Display) -> StoreError {
        self.unreachable(format!(
            "no connection ({cause}); is Consul up, and is `store.address` its address?"
        ))
    }

    fn unreachable(&self, cause: String) -> StoreError {
        StoreError::Unreachable { store: self.describe(), cause }
    }
}

/// The cause of a failure in which the server took a connection and gave it up before any answer.
/// Consul closes those beyond its limit for one address without a word, or with status 429.
fn refused(cause: &str) -> String {
    format!(
        "it closed the connection at once ({cause}); Consul does so while it has too many from \
         this host, see `limits.http_max_conns_per_client` in its configuration"
    )
}

/// A TCP connection; with `keepalive`, one on which a silently dead peer is noticed within
/// [`PEER_TIMEOUT`].
async fn connect_tcp(authority: &str, keepalive: bool) -> std::io::Result<TcpStream> {
    let stream = connect_to_any(authority).await?;
    stream.set_nodelay(true)?;
    if keepalive {
        let probes = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&probes)?;
        socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    }
    Ok(stream)
}

/// A connection to the first address of `host:port` that takes one. The name is resolved without
/// the C library, whose resolver loads modules and so cannot be part of a static program.
async fn connect_to_any(authority: &str) -> std::io::Result<TcpStream> {
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "expected host:port");
    let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = timeout(NAME_TIMEOUT, weft_resolve::lookup(host)).await.map_err(|_| {
        let waited = format!("no DNS server told the address of {host} within 2 s");
        std::io::Error::new(std::io::ErrorKind::TimedOut, waited)
    })?;
    let addresses = addresses.map_err(std::io::Error::other)?;
    let mut failure = None;
    let last = addresses.len().saturating_sub(1);
    for (number, address) in addresses.into_iter().enumerate() {
        let connecting = TcpStream::connect((address, port));
        // One that does not answer leaves time for the next.
        let limit = if number == last { CONNECT_TIMEOUT } else { ADDRESS_TIMEOUT };
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = Some(error),
            Err(_) => {
                let waited = format!("{address} does not answer");
                failure = Some(std::io::Error::new(std::io::ErrorKind::TimedOut, waited));
            }
        }
    }
    Err(failure.unwrap_or_else(|| std::io::Error::other(format!("{host} has no address"))))
}

fn is_filtered(headers: &HeaderMap) -> bool {
    headers.get("x-consul-results-filtered-by-acls").is_some_and(|value| value == "true")
}

/// Omits the token.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("store", &self.store).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
