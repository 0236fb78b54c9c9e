//! A routing netlink socket: requests in batches, dumps while they arrive.
//!
//! The kernel carries out a routing request inside `sendmsg`, in the sender's context, so nothing
//! is gained by waiting for the answer asynchronously: when `send` returns, the answer lies in the
//! socket. Several requests in one message are carried out one after the other whatever becomes of
//! each (`netlink_rcv_skb`); an error is always answered, a success only if the request asks for it
//! (`NLM_F_ACK`). So a batch asks for the acknowledgement of its last request alone, and whatever
//! has not been answered by then has succeeded.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use log::debug;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::answer::{Answer, Messages, Refusal};

/// Time within which the kernel must answer. It may have to wait for others that hold the lock of
/// all links, while hundreds of containers start.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Number of times that an interrupted dump is repeated. On a busy host one in ten is.
const DUMP_TRIES: usize = 40;

/// Room for one datagram. The kernel fills at most 32 KiB for a dump (`netlink_recvmsg`).
const BUFFER: usize = 64 * 1024;

/// A request, and the answer that it has.
#[derive(Debug)]
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    /// The answer is an object, not an acknowledgement.
    shows: bool,
}

impl Request {
    /// A change; `flags` beside `NLM_F_REQUEST`.
    pub(crate) fn change(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags, shows: false }
    }

    /// A question about one object.
    pub(crate) fn get(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0, shows: true }
    }
}

/// The kernel's answer to one request: the objects that it shows, or its refusal.
pub(crate) type Outcome = Result<Vec<RouteNetlinkMessage>, Refusal>;

/// A failure of the exchange itself: what became of the requests is not known.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A system call failed.
    Io(io::Error),
    /// The answer did not come, or not to the end.
    Lost(String),
    /// The kernel refused a dump.
    Refused(Refusal),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => Self::Lost("the kernel had to drop answers".into()),
            _ => Self::Io(error),
        }
    }
}

/// A socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    buffer: Vec<u8>,
    sequence: u32,
    /// The kernel has been asked to filter dumps.
    strict: bool,
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        // A kernel that knows neither leaves out its sentence; nothing else changes.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { inner: socket, buffer: Vec::new(), sequence: 0, strict: false })
    }

    /// Opens a socket that receives the notifications of the groups in `groups`, a mask of
    /// `RTMGRP_*`.
    pub(crate) fn subscribe(groups: u32) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        socket.bind(&netlink_sys::SocketAddr::new(0, groups))?;
        Ok(Self { inner: socket, buffer: Vec::new(), sequence: 0, strict: false })
    }

    /// Sends all requests in one message and returns the kernel's answer to each.
    pub(crate) fn exchange(&mut self, requests: Vec<Request>) -> Result<Vec<Outcome>, Failure> {
        let first = self.sequence.wrapping_add(1);
        let mut outcomes: Vec<Outcome> = requests.iter().map(|_| Ok(vec![])).collect();
        let Some(last) = requests.len().checked_sub(1) else { return Ok(outcomes) };
        let mut bytes = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            let ack = if index == last && !request.shows { NLM_F_ACK } else { 0 };
            self.sequence = self.sequence.wrapping_add(1);
            let flags = request.flags | NLM_F_REQUEST | ack;
            append(&mut bytes, request.message, flags, self.sequence);
        }
        self.send(&bytes)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            self.receive(deadline)?;
            for message in Messages::of(&self.buffer) {
                // Answers to what was given up before are older than the first.
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(outcome) = outcomes.get_mut(index) else { continue };
                match message.answer {
                    Answer::Acknowledged | Answer::Done(_) => {}
                    Answer::Refused(refusal) => *outcome = Err(refusal),
                    Answer::Object(payload) => {
                        let object = parse(message.kind, payload);
                        if let (Ok(objects), Some(object)) = (outcome, object) {
                            objects.push(object);
                        }
                    }
                }
                if index == last {
                    return Ok(outcomes);
                }
            }
        }
    }

    /// Dumps objects: hands the type and payload of each to `visit`, together with what it has
    /// collected so far. A dump that the kernel says was interrupted is repeated from the start.
    pub(crate) fn dump<T: Default>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut visit: impl FnMut(&mut T, u16, &[u8]),
    ) -> Result<T, Failure> {
        if !self.strict {
            // A kernel that does not know it lists more than was asked for; callers filter too.
            let _ = self.inner.set_netlink_get_strict_chk(true);
            self.strict = true;
        }
        let mut busy = None;
        for _ in 0..DUMP_TRIES {
            match self.dump_once(message, &mut visit) {
                Ok(Some(collected)) => return Ok(collected),
                Ok(None) => busy = None,
                // An earlier dump was given up before its end: read the rest of it.
                Err(Failure::Refused(refusal)) if refusal.errno == libc::EBUSY => {
                    busy = Some(refusal);
                    while self.receive(Instant::now()).is_ok() {}
                }
                Err(error) => return Err(error),
            }
        }
        Err(busy.map_or_else(
            || Failure::Lost(format!("interrupted by changes {DUMP_TRIES} times in a row")),
            Failure::Refused,
        ))
    }

    /// One dump; none if it was interrupted.
    fn dump_once<T: Default>(
        &mut self,
        message: &RouteNetlinkMessage,
        visit: &mut impl FnMut(&mut T, u16, &[u8]),
    ) -> Result<Option<T>, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        append(&mut bytes, message.clone(), NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.send(&bytes)?;
        let mut collected = T::default();
        let mut interrupted = false;
        loop {
            self.receive(Instant::now() + TIMEOUT)?;
            for message in Messages::of(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.answer {
                    Answer::Object(payload) => visit(&mut collected, message.kind, payload),
                    Answer::Refused(refusal) => return Err(Failure::Refused(refusal)),
                    Answer::Acknowledged | Answer::Done(0) => {
                        return Ok((!interrupted).then_some(collected));
                    }
                    // The end of a dump carries an error of its own.
                    Answer::Done(errno) => {
                        return Err(Failure::Refused(Refusal { errno, said: None }));
                    }
                }
            }
        }
    }

    /// Hands the type and payload of each notification that lies in the socket to `visit`; an error
    /// if the kernel had to drop some.
    pub(crate) fn notifications(
        &mut self,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        while let Some(()) = self.try_receive()? {
            for message in Messages::of(&self.buffer) {
                if let Answer::Object(payload) = message.answer {
                    visit(message.kind, payload);
                }
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.inner.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// Reads one datagram, waiting for it until `deadline`.
    fn receive(&mut self, deadline: Instant) -> Result<(), Failure> {
        while self.try_receive()?.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Lost(format!("no answer within {} s", TIMEOUT.as_secs())));
            }
            wait(&mut [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN)], left)?;
        }
        Ok(())
    }

    /// Reads one datagram if one lies in the socket.
    fn try_receive(&mut self) -> Result<Option<()>, Failure> {
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        match self.inner.recv(&mut self.buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
            Ok(length) if length > self.buffer.len() => {
                Err(Failure::Lost(format!("an answer of {length} bytes is too long")))
            }
            Ok(_) => Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.try_receive(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Waits until one of the descriptors is ready, or for as long as `timeout`.
pub(crate) fn wait(descriptors: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    // Rounded up, else the last millisecond would be spent in a loop.
    let milliseconds = i32::try_from(timeout.as_millis() + 1).unwrap_or(i32::MAX);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match nix::poll::poll(descriptors, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Appends a request to a message of several.
pub(crate) fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    // The next header begins at a multiple of four (`NLMSG_ALIGN`).
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The object in a payload; none if this library cannot read it.
pub(crate) fn parse(kind: u16, payload: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    netlink_packet_core::NetlinkDeserializable::deserialize(&header, payload)
        .inspect_err(|error| debug!("ignoring a netlink message of type {kind}: {error}"))
        .ok()
}
