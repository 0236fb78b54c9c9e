//! One request to Consul and its answer.
//!
//! Short requests share a connection while it lives; a question that stays open gets one of its own.
//! Proxy variables of the environment are not looked at: container runtimes often run with those
//! set for pulling images, and a proxy is never on the way to Consul.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{ConsulOptions, PATIENCE, tls};
use crate::StoreError;

/// How long to wait for a connection. Consul is on this machine or in this data centre.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection may lie idle and be used again. A server that went away meanwhile leaves one
/// that looks alive until a request is lost on it, and a write that may have arrived is not repeated.
const IDLE_PATIENCE: Duration = Duration::from_secs(1);

/// What stands in a path as it is; `/` separates the segments of a key.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// Escapes a key for a path.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Where Consul listens.
enum Endpoint {
    Tcp { authority: String },
    Tls { authority: String, name: ServerName<'static>, connector: TlsConnector },
    Unix(PathBuf),
}

/// A client of one Consul agent.
pub(super) struct Client {
    endpoint: Endpoint,
    address: String,
    token: Option<String>,
    idle: Mutex<Option<Idle>>,
}

/// A connection, and since when nobody uses it.
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

impl Idle {
    fn new(sender: SendRequest<Full<Bytes>>) -> Self {
        Self { sender, since: Instant::now() }
    }

    /// The connection, if it can be relied on.
    fn fresh(self) -> Option<SendRequest<Full<Bytes>>> {
        let fresh = self.since.elapsed() < IDLE_PATIENCE && !self.sender.is_closed();
        fresh.then_some(self.sender)
    }
}

/// A request.
pub(super) struct Question {
    method: Method,
    path: String,
    body: Vec<u8>,
    patience: Duration,
    shares: bool,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `X-Consul-Index`.
    pub(super) index: Option<u64>,
    pub(super) body: Bytes,
}

impl Question {
    pub(super) fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: vec![], patience: PATIENCE, shares: true }
    }

    pub(super) fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    pub(super) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn on_a_connection_of_its_own(self) -> Self {
        Self { shares: false, ..self }
    }
}

impl Answer {
    /// The error that an answer other than the wanted one stands for.
    pub(super) fn unexpected(&self, store: &str) -> StoreError {
        let store = store.to_owned();
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim().chars().take(300).collect::<String>();
        match self.status {
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                StoreError::Denied { store, cause: text }
            }
            StatusCode::PAYLOAD_TOO_LARGE => StoreError::TooLarge { store, what: text },
            // No leader, an expired session, a lost RPC: the server's state of the moment.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                StoreError::Unreachable { store, cause: text }
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
        let store = format!("Consul at {address}");
        let refuse = |reason: &str| StoreError::Options {
            store: store.clone(),
            option: "address",
            reason: reason.to_owned(),
        };
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
        Ok(Self { endpoint, address, token, idle: Mutex::new(None) })
    }

    pub(super) fn describe(&self) -> String {
        format!("Consul at {}", self.address)
    }

    /// Asks, and waits for the whole answer.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, StoreError> {
        match timeout(question.patience, self.converse(&question)).await {
            Ok(answer) => answer,
            Err(_) => Err(self
                .unreachable(format!("no answer within {:.1} s", question.patience.as_secs_f64()))),
        }
    }

    async fn converse(&self, question: &Question) -> Result<Answer, StoreError> {
        let idle = if question.shares { self.idle.lock().await.take() } else { None };
        if let Some(mut sender) = idle.and_then(Idle::fresh) {
            match self.exchange(&mut sender, question).await {
                Ok(answer) => {
                    *self.idle.lock().await = Some(Idle::new(sender));
                    return Ok(answer);
                }
                // The server closed the idle connection before the request was on its way.
                Err(error) if error.is_canceled() || question.method == Method::GET => {}
                Err(error) => return Err(self.unreachable(error.to_string())),
            }
        }
        let mut sender = self.connect().await?;
        let answer = self.exchange(&mut sender, question).await;
        let answer = answer.map_err(|error| self.unreachable(error.to_string()))?;
        if question.shares {
            *self.idle.lock().await = Some(Idle::new(sender));
        }
        Ok(answer)
    }

    async fn exchange(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        question: &Question,
    ) -> Result<Answer, hyper::Error> {
        sender.ready().await?;
        let host = match &self.endpoint {
            Endpoint::Tcp { authority } | Endpoint::Tls { authority, .. } => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::new(Full::new(Bytes::from(question.body.clone())));
        *request.method_mut() = question.method.clone();
        // Paths are made of escaped keys and constants, and tokens were checked.
        if let Ok(uri) = question.path.parse() {
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
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, index, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, StoreError> {
        let connecting = async {
            match &self.endpoint {
                Endpoint::Unix(path) => self.speak(UnixStream::connect(path).await).await,
                Endpoint::Tcp { authority } => {
                    let stream = TcpStream::connect(authority).await;
                    self.speak(stream.inspect(|stream| drop(stream.set_nodelay(true)))).await
                }
                Endpoint::Tls { authority, name, connector } => {
                    let stream = TcpStream::connect(authority).await;
                    let stream = stream.map_err(|error| self.unreachable(error.to_string()))?;
                    self.speak(connector.connect(name.clone(), stream).await).await
                }
            }
        };
        match timeout(CONNECT_PATIENCE, connecting).await {
            Ok(sender) => sender,
            Err(_) => Err(self.unreachable("no connection within 1 s".into())),
        }
    }

    async fn speak<S>(
        &self,
        stream: std::io::Result<S>,
    ) -> Result<SendRequest<Full<Bytes>>, StoreError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = stream.map_err(|error| self.unreachable(error.to_string()))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| self.unreachable(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("a connection to Consul ended: {error}");
            }
        });
        Ok(sender)
    }

    fn unreachable(&self, cause: String) -> StoreError {
        StoreError::Unreachable { store: self.describe(), cause }
    }
}

/// `host:port`, with the port filled in.
fn authority(rest: &str, port: u16) -> Option<String> {
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let after_bracket = host.rsplit(']').next().unwrap_or(host);
    Some(if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:{port}") })
}

/// Without the token.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}
