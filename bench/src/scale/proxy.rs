//! A TCP proxy in front of Consul that notes its answers.
//!
//! A client of HTTP/1.1 that does not pipeline sends its next request after it has the whole answer
//! to the last. So all that the server sends between two requests is one answer, and the proxy need
//! not understand it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// The answers to one path, in bytes with the headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Requests.
    pub requests: usize,
    /// Bytes of all answers.
    pub bytes: usize,
    /// Bytes of the largest one.
    pub largest: usize,
}

/// The answers to each path.
pub(crate) type ByPath = BTreeMap<String, Answers>;

/// A proxy. It ends with the process.
pub(crate) struct Proxy {
    answers: Arc<Mutex<ByPath>>,
}

/// The request under way in a connection.
#[derive(Default)]
struct Exchange {
    path: String,
    answered: usize,
}

impl Proxy {
    /// Listens at `address` and passes everything on to `server`.
    pub(crate) fn start(address: &str, server: &str) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let proxy = Self { answers: Arc::default() };
        let (answers, server) = (proxy.answers.clone(), server.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                // Without this, the proxy would add delays of its own.
                let _ = client.set_nodelay(true).and(server.set_nodelay(true));
                let _ = connect(&client, &server, &answers);
            }
        });
        Ok(proxy)
    }

    /// The answers since the last call, by path without its query.
    pub(crate) fn take(&self) -> ByPath {
        std::mem::take(&mut *lock(&self.answers))
    }
}

/// Starts a thread for each direction.
fn connect(client: &TcpStream, server: &TcpStream, answers: &Arc<Mutex<ByPath>>) -> Result<()> {
    let exchange = Arc::new(Mutex::new(Exchange::default()));
    let (asking, asked) = (exchange.clone(), answers.clone());
    copy(client.try_clone()?, server.try_clone()?, move |bytes| {
        if let Some(path) = requested(bytes) {
            lock(&asked).entry(path.clone()).or_default().requests += 1;
            *lock(&asking) = Exchange { path, answered: 0 };
        }
    });
    let answers = answers.clone();
    copy(server.try_clone()?, client.try_clone()?, move |bytes| {
        let mut exchange = lock(&exchange);
        exchange.answered += bytes.len();
        let mut answers = lock(&answers);
        let of_path = answers.entry(exchange.path.clone()).or_default();
        of_path.bytes += bytes.len();
        of_path.largest = exchange.answered.max(of_path.largest);
    });
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8]) + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            see(&buffer[..length]);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// The path without the query, if the bytes begin a request.
fn requested(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (path, protocol) = (words.nth(1)?, words.next()?);
    let path = path.split('?').next()?;
    protocol.starts_with("HTTP/").then(|| path.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_path_without_the_query() {
        let request = b"GET /v1/kv/weft/v1/blocks/n/?recurse&index=7 HTTP/1.1\r\nhost: h\r\n\r\n";
        assert_eq!(requested(request).unwrap(), "/v1/kv/weft/v1/blocks/n/");
        assert_eq!(requested(b"{\"a body\": \"of its own\"}"), None);
    }

    #[test]
    fn notes_the_answers_of_each_path() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut socket = server.accept().unwrap().0;
            for length in [10, 70_000, 20] {
                assert!(socket.read(&mut [0; 100]).unwrap() > 0);
                socket.write_all(&vec![b'a'; length]).unwrap();
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let proxy = Proxy::start(&free, &address).unwrap();
        let mut client = TcpStream::connect(&free).unwrap();
        for (path, length) in [("/a", 10), ("/b", 70_000), ("/c", 20)] {
            client.write_all(format!("GET {path}?x HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
            client.read_exact(&mut vec![0; length]).unwrap();
        }
        let answers = |bytes| Answers { requests: 1, bytes, largest: bytes };
        let expected = [("/a", 10), ("/b", 70_000), ("/c", 20)];
        let expected = expected.map(|(path, bytes)| (path.to_owned(), answers(bytes)));
        assert_eq!(proxy.take(), ByPath::from(expected));
        assert_eq!(proxy.take(), ByPath::new());
    }
}
