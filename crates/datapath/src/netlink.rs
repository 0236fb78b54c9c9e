//! Requests to the kernel, and dumps that can be trusted.
//!
//! Three things are done here that the library leaves undone. A dump that the kernel says was
//! interrupted (`NLM_F_DUMP_INTR`: something changed meanwhile, entries may be missing) is repeated,
//! since whoever compares it with what should be would delete what is only missing from the list.
//! Dumps of one connection take turns, since the kernel refuses to begin one on a socket that is in
//! the middle of another (`netlink_dump_start`). And an error carries the sentence that the kernel
//! adds to it (extended acknowledgement), which says what the number does not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket;
use rtnetlink::{Handle, new_connection};
use tokio::sync::Mutex;

use crate::DatapathError;
use crate::netns::Netns;

/// How long the kernel may take for one answer. It may have to wait for others that hold the lock
/// of all links, while hundreds of containers start.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often to repeat a dump that was interrupted. On a busy host one in ten is.
const DUMP_TRIES: usize = 40;

/// How long to leave the kernel to end a dump that nobody waits for any more.
const DUMP_PAUSE: Duration = Duration::from_millis(10);

/// The attribute of an extended acknowledgement that holds the sentence (`NLMSGERR_ATTR_MSG`).
const ATTRIBUTE_MESSAGE: u16 = 1;

/// The length of a netlink header, which precedes the attributes of an acknowledgement.
const HEADER_LENGTH: usize = 16;

/// A connection to the kernel's routing netlink in one network namespace.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    /// Held for as long as a dump takes.
    dump_turn: Arc<Mutex<()>>,
}

impl Netlink {
    /// Connects in the namespace of the calling thread, from within a runtime.
    pub fn open() -> Result<Self, DatapathError> {
        let failed = |source| DatapathError::Io { what: "open a netlink socket".into(), source };
        let (mut connection, handle, _) = new_connection().map_err(failed)?;
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        // Older kernels know less; the sentence and the filter are then missing, nothing else.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        tokio::spawn(connection);
        Ok(Self { handle, dump_turn: Arc::default() })
    }

    /// Connects in another namespace. The socket stays there; the calling thread does not go.
    pub fn open_in(netns: &Netns) -> Result<Self, DatapathError> {
        let runtime = tokio::runtime::Handle::current();
        netns.run(move || {
            let _context = runtime.enter();
            Self::open()
        })?
    }

    /// Sends a request and waits until the kernel has carried it out.
    pub(crate) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl Fn() -> String,
    ) -> Result<(), DatapathError> {
        self.exchange(message, flags | NLM_F_REQUEST | NLM_F_ACK, &what).await.map(drop)
    }

    /// Asks about one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, DatapathError> {
        // The acknowledgement ends the answer.
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK, &what).await.map(|(answer, _)| answer)
    }

    /// Asks for all objects of a kind: all there are, or an error.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, DatapathError> {
        let _turn = self.dump_turn.lock().await;
        let mut last = None;
        for _ in 0..DUMP_TRIES {
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            match self.exchange(message.clone(), flags, &what).await {
                Ok((answer, false)) => return Ok(answer),
                Ok((_, true)) => last = None,
                // Whoever had the turn before gave up; the kernel is not yet through.
                Err(error) if error.errno() == Some(libc::EBUSY) => {
                    last = Some(error);
                    tokio::time::sleep(DUMP_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| DatapathError::NoAnswer {
            what: what(),
            problem: format!("interrupted by changes {DUMP_TRIES} times in a row"),
        }))
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &impl Fn() -> String,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), DatapathError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let lost = |problem: String| DatapathError::NoAnswer { what: what(), problem };
        let answers = self.handle.clone().request(message).map_err(|e| lost(e.to_string()))?;
        let mut answers = std::pin::pin!(answers);
        let mut received = vec![];
        let mut interrupted = false;
        loop {
            let answer = match tokio::time::timeout(PATIENCE, answers.next()).await {
                Ok(Some(answer)) => answer,
                Ok(None) => return Ok((received, interrupted)),
                Err(_) => return Err(lost(format!("no answer within {} s", PATIENCE.as_secs()))),
            };
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => received.push(inner),
                NetlinkPayload::Error(error) => {
                    if let Some(code) = error.code {
                        let (errno, said) = (code.get().abs(), sentence(&error.header));
                        return Err(DatapathError::Kernel { what: what(), errno, said });
                    }
                    return Ok((received, interrupted));
                }
                // The end of a dump carries an error of its own.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    let (errno, said) = (-done.code, None);
                    return Err(DatapathError::Kernel { what: what(), errno, said });
                }
                NetlinkPayload::Done(_) => return Ok((received, interrupted)),
                NetlinkPayload::Overrun(_) => return Err(lost("answers were lost".into())),
                _ => {}
            }
        }
    }
}

/// The kernel's sentence in the payload of an acknowledgement: the request's header, then attributes
/// of two bytes length, two bytes type and the value, padded to four (`Documentation/userspace-api/netlink/intro.rst`).
fn sentence(payload: &[u8]) -> Option<String> {
    let mut rest = payload.get(HEADER_LENGTH..)?;
    while let Some((&[a, b, c, d], _)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == ATTRIBUTE_MESSAGE {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sentence_is_found_among_other_attributes() {
        let mut payload = vec![0; HEADER_LENGTH];
        payload.extend([8, 0, 2, 0, 1, 2, 3, 4]);
        payload.extend([7, 0, 1, 0, b'n', b'o', 0, 0]);
        assert_eq!(sentence(&payload).as_deref(), Some("no"));
        assert_eq!(sentence(&[]), None);
        assert_eq!(sentence(&payload[..HEADER_LENGTH + 8]), None);
        payload.truncate(HEADER_LENGTH + 12);
        assert_eq!(sentence(&payload), None);
    }
}
