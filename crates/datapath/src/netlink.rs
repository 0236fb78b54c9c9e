//! Requests to the kernel, and dumps that can be trusted.
//!
//! A dump that the kernel says was interrupted (`NLM_F_DUMP_INTR`: something changed meanwhile,
//! entries may be missing) is repeated, since a comparison of it with what should be would delete
//! what is only missing from the list. And an error carries the sentence that the kernel adds to it
//! (extended acknowledgement), which says what the number does not.
//!
//! The messages come from the builders of `rtnetlink`, and its connection is not used: here one
//! sendmsg(2) carries several requests, thousands of them for a large network's peers; the kernel's
//! sentences and the flag of an interrupted dump come through; and a process of 3 ms starts no
//! event loop.
//!
//! A routing request keeps its thread in the kernel until it is carried out, which takes as long as
//! others hold the lock of all links. A short-lived process has nothing else to do
//! ([`Netlink::open`]); one that serves others must not wait on its only thread
//! ([`Netlink::open_offloaded`]).

mod answer;
mod socket;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;

pub(crate) use answer::{Answer, Attributes, Messages, Refusal, attribute, u16_at, u32_at};
pub(crate) use socket::{Failure, Outcome, Request, Socket, TIMEOUT, append, parse, wait};

use crate::DatapathError;
use crate::netns::{Entry, Netns};

/// A connection to the kernel's routing netlink in one network namespace.
#[derive(Debug, Clone)]
pub struct Netlink {
    socket: Arc<Mutex<Socket>>,
    /// For what takes long, so that other requests need not wait for its end.
    bulk: Arc<Mutex<Socket>>,
    offloaded: bool,
}

impl Netlink {
    /// Connects in the calling thread's namespace, for a process that does one thing at a time:
    /// requests are carried out on the thread that awaits them.
    pub fn open() -> Result<Self, DatapathError> {
        let socket = Arc::new(Mutex::new(open_socket()?));
        Ok(Self { bulk: Arc::clone(&socket), socket, offloaded: false })
    }

    /// Connects in the calling thread's namespace, for a process that does several things at once:
    /// requests are carried out on tokio's threads for blocking work, and the thread that awaits
    /// them stays free. Its methods must be called within a runtime.
    pub fn open_offloaded() -> Result<Self, DatapathError> {
        let socket = Arc::new(Mutex::new(open_socket()?));
        let bulk = Arc::new(Mutex::new(open_socket()?));
        Ok(Self { socket, bulk, offloaded: true })
    }

    /// Connects in the calling thread's namespace, for passes that run on several threads: requests
    /// are carried out on the thread that awaits them, and those that take long do not hold up
    /// others.
    pub fn open_shared() -> Result<Self, DatapathError> {
        let socket = Arc::new(Mutex::new(open_socket()?));
        let bulk = Arc::new(Mutex::new(open_socket()?));
        Ok(Self { socket, bulk, offloaded: false })
    }

    /// Connects in another namespace, as [`Netlink::open`] does. The socket stays there.
    pub fn open_in(netns: &Netns, entry: Entry) -> Result<Self, DatapathError> {
        netns.run(entry, Self::open)?
    }

    /// Returns whether requests are carried out off the thread that awaits them.
    pub fn is_offloaded(&self) -> bool {
        self.offloaded
    }

    /// Sends one request and waits until the kernel has carried it out.
    pub(crate) async fn request(
        &self,
        request: Request,
        what: impl Fn() -> String,
    ) -> Result<(), DatapathError> {
        let outcomes = self.exchange(vec![request], &what).await?;
        first_refusal(outcomes, |_| what())
    }

    /// Sends several requests at once. All of them are carried out, in their order, whatever
    /// becomes of each.
    pub(crate) async fn exchange(
        &self,
        requests: Vec<Request>,
        what: impl Fn() -> String,
    ) -> Result<Vec<Outcome>, DatapathError> {
        self.run(&self.socket, TIMEOUT, &what, move |socket| socket.exchange(requests)).await
    }

    /// Asks for all objects of a kind: all there are, or an error.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, DatapathError> {
        let work = move |socket: &mut Socket| {
            socket.dump(&message, |all: &mut Vec<RouteNetlinkMessage>, kind, payload| {
                all.extend(parse(kind, payload));
            })
        };
        self.run(&self.socket, TIMEOUT, &what, work).await
    }

    /// Does work that takes long, on a socket of its own if requests are offloaded.
    pub(crate) async fn bulk<T: Send + 'static>(
        &self,
        timeout: Duration,
        what: impl Fn() -> String,
        work: impl FnOnce(&mut Socket) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, DatapathError> {
        self.run(&self.bulk, timeout, &what, work).await
    }

    /// Does `work` on the calling thread or, if requests are offloaded, on another. In the latter
    /// case work that takes longer than `timeout` goes on alone.
    async fn run<T: Send + 'static>(
        &self,
        socket: &Arc<Mutex<Socket>>,
        timeout: Duration,
        what: &impl Fn() -> String,
        work: impl FnOnce(&mut Socket) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, DatapathError> {
        let socket = Arc::clone(socket);
        let work = move || work(&mut socket.lock().unwrap_or_else(PoisonError::into_inner));
        let result = if self.offloaded {
            match tokio::time::timeout(timeout, tokio::task::spawn_blocking(work)).await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => Err(Failure::Lost(format!("the work ended early: {error}"))),
                Err(_) => Err(Failure::Lost(format!("no answer within {} s", timeout.as_secs()))),
            }
        } else {
            work()
        };
        result.map_err(|failure| failed(what(), failure))
    }
}

fn open_socket() -> Result<Socket, DatapathError> {
    Socket::open()
        .map_err(|source| DatapathError::Io { what: "open a netlink socket".into(), source })
}

/// The first refusal among `outcomes` as an error; `what` says what was asked by the request's
/// index.
pub(crate) fn first_refusal(
    outcomes: Vec<Outcome>,
    what: impl Fn(usize) -> String,
) -> Result<(), DatapathError> {
    for (index, outcome) in outcomes.into_iter().enumerate() {
        outcome.map_err(|refusal| refused(what(index), refusal))?;
    }
    Ok(())
}

/// The error for a request that the kernel refused.
pub(crate) fn refused(what: String, Refusal { errno, said }: Refusal) -> DatapathError {
    DatapathError::Kernel { what, errno, said }
}

/// The error for an exchange that failed.
pub(crate) fn failed(what: String, failure: Failure) -> DatapathError {
    match failure {
        Failure::Io(source) => DatapathError::Io { what, source },
        Failure::Lost(problem) => DatapathError::NoAnswer { what, problem },
        Failure::Refused(refusal) => refused(what, refusal),
    }
}
