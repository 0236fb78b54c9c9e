//! The end of a veth, without the wait for the kernel's readers.
//!
//! The request that deletes a link (`RTM_DELLINK`) returns some 20 ms after the link is gone: the
//! kernel first waits until no reader can hold a pointer into it (`rcu_barrier` in
//! `netdev_run_todo`). Everything that a caller can observe has happened before: both ends are off
//! the lists, and the name is free. The kernel says so, after some 2 ms, by a notification to the
//! group of links. So a helper process makes the request and stays in it, and the caller goes on
//! with the notification.
//!
//! The helper has a session of its own and none of the caller's descriptors, since runtimes read a
//! plugin's pipes to their end. It hands the kernel's answer back by a socket: a refusal comes
//! before any notification. A caller that ends leaves it to the system's first process (or to the
//! nearest subreaper), which collects it; in one that goes on the next deletion does. A child of a
//! child would need no collecting, but on a busy host it costs the caller milliseconds to have two
//! processes scheduled.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use log::{debug, warn};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use nix::poll::{PollFd, PollFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rtnetlink::LinkUnspec;

use super::is_host_end;
use crate::DatapathError;
use crate::link::Link;
use crate::netlink::{
    Answer, Messages, Netlink, Refusal, Socket, TIMEOUT, append, attribute, refused, u32_at, wait,
};

/// The group of notifications about links (`RTMGRP_LINK`).
const GROUP_LINK: u32 = 1;

/// `RTM_DELLINK`, and the layout of its payload (`struct ifinfomsg`, then `IFLA_IFNAME`).
const RTM_DELLINK: u16 = 17;
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;

/// Removes a veth pair by its host end, and returns once both ends are gone and the name is free.
/// Returns whether the host end was there. A link that [is none](is_host_end) stays.
///
/// With an offloaded [`Netlink`] the wait for the kernel's readers takes place on its thread, and
/// there is no helper process: so it is for processes that live long. Else `netlink` must be
/// connected in the calling thread's namespace; a helper process without descriptors of the caller
/// outlives the call by some 20 ms, and is collected by the next call if the caller still lives.
///
/// # Errors
///
/// [`DatapathError::Kernel`] if the kernel refuses (EPERM, EOPNOTSUPP, ...). If no helper process
/// can be started, or none says how it went, the request is made here.
pub async fn delete_port(netlink: &Netlink, host_end: &str) -> Result<bool, DatapathError> {
    let Some(link) = netlink.link(host_end).await? else { return Ok(false) };
    if !is_host_end(&link) {
        warn!("{host_end} is not deleted: another program than weft has made it");
        return Ok(false);
    }
    if netlink.is_offloaded() {
        return netlink.delete_link(host_end).await;
    }
    collect_helpers();
    let mut helper = match Helper::start(&link) {
        Ok(helper) => helper,
        Err(error) => {
            debug!("delete {host_end} without a helper process: {error}");
            return netlink.delete_link(host_end).await;
        }
    };
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        match helper.next(deadline) {
            Ok(Event::Deleted) => return Ok(true),
            Ok(Event::Refused(refusal)) => {
                let error = refused(format!("delete {host_end}"), refusal);
                return if error.is_missing() { Ok(false) } else { Err(error) };
            }
            Ok(Event::Unlisted) => {
                // Both ends are off the lists before the first notification
                // (`unregister_netdevice_many`); another process may have taken the name since.
                let now = netlink.link(host_end).await?;
                if now.is_none_or(|now| now.index != link.index) {
                    return Ok(true);
                }
            }
            Err(error) => {
                debug!("delete {host_end}: the helper process is of no help: {error}");
                break;
            }
        }
    }
    Ok(netlink.delete_link(host_end).await? || netlink.link(host_end).await?.is_none())
}

/// The process that deletes a link, as seen from its caller.
struct Helper {
    report: UnixStream,
    notifications: Option<Socket>,
    index: u32,
    name: Vec<u8>,
}

/// A message of the helper or of the kernel.
enum Event {
    /// The kernel has carried the request out.
    Deleted,
    /// The kernel has refused it.
    Refused(Refusal),
    /// The link is gone, or may be.
    Unlisted,
}

impl Helper {
    fn start(link: &Link) -> io::Result<Self> {
        // Before the request, else the notification could be missed.
        let notifications = Some(Socket::subscribe(GROUP_LINK)?);
        let socket = Socket::open()?;
        let (report, theirs) = UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let mut request = Vec::new();
        // By index: a helper that is late must not find the next interface of that name.
        let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(link.index).build());
        append(&mut request, message, NLM_F_REQUEST | NLM_F_ACK, 1);
        start_process(&request, socket.as_raw_fd(), theirs.as_raw_fd())?;
        let name = link.name.clone().into_bytes();
        Ok(Self { report, notifications, index: link.index, name })
    }

    /// Waits for the next event; an error if there will be none, or not until `deadline`.
    fn next(&mut self, deadline: Instant) -> io::Result<Event> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut descriptors = vec![PollFd::new(self.report.as_fd(), PollFlags::POLLIN)];
            let notifications = self.notifications.as_ref();
            descriptors
                .extend(notifications.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            wait(&mut descriptors, left)?;
            if let Some(event) = self.read_report()? {
                return Ok(event);
            }
            if self.is_notified() {
                return Ok(Event::Unlisted);
            }
        }
    }

    fn read_report(&mut self) -> io::Result<Option<Event>> {
        let mut buffer = [0; 4096];
        match self.report.read(&mut buffer) {
            Ok(length) => match Messages::of(&buffer[..length]).next().map(|m| m.answer) {
                Some(Answer::Acknowledged) => Ok(Some(Event::Deleted)),
                Some(Answer::Refused(refusal)) => Ok(Some(Event::Refused(refusal))),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the kernel has said that the link is gone, or had to drop what it said.
    fn is_notified(&mut self) -> bool {
        let Some(socket) = &mut self.notifications else { return false };
        let (index, name) = (self.index, self.name.as_slice());
        let mut notified = false;
        let read = socket.notifications(|kind, payload| {
            // A bridge that loses a port says so with the same type, and its own family
            // (AF_BRIDGE).
            notified |= kind == RTM_DELLINK
                && payload.first() == Some(&0)
                && u32_at(payload, 4) == Some(index)
                && attribute(payload.get(IFINFOMSG..).unwrap_or_default(), IFLA_IFNAME)
                    .is_some_and(|found| found.strip_suffix(b"\0").unwrap_or(found) == name);
        });
        if read.is_err() {
            // Nothing more is to be learned here; the helper's answer comes in any case.
            self.notifications = None;
        }
        notified || read.is_err()
    }
}

/// Helper processes that have not been collected.
static HELPERS: Mutex<Vec<Pid>> = Mutex::new(vec![]);

/// Collects the helper processes that have ended.
fn collect_helpers() {
    let mut helpers = HELPERS.lock().unwrap_or_else(PoisonError::into_inner);
    helpers.retain(|pid| {
        matches!(waitpid(*pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    });
}

/// Starts the helper process: sends `request` by the socket `netlink` and the answer by `report`.
#[expect(unsafe_code, reason = "fork(2), and system calls in the child")]
fn start_process(request: &[u8], netlink: RawFd, report: RawFd) -> io::Result<()> {
    // SAFETY: the child, which may be of a process with other threads, makes only calls that are
    // async-signal-safe (signal-safety(7)) until it ends, and touches no memory that another thread
    // may have been changing: its own stack, and `request`, which is borrowed.
    let child = unsafe {
        match libc::fork() {
            0 => delete(request, netlink, report),
            child => child,
        }
    };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner).push(Pid::from_raw(child));
    Ok(())
}

/// The helper process. It ends without a report if it could not even make the request.
///
/// # Safety
///
/// Runs in a child process of its own, which it ends.
#[expect(unsafe_code, reason = "system calls after fork(2)")]
unsafe fn delete(request: &[u8], netlink: RawFd, report: RawFd) -> ! {
    let mut answer = [0u8; 2048];
    // SAFETY: system calls on memory of this stack and on `request`. Descriptors that the caller
    // owns are closed in this process only.
    unsafe {
        let (low, high) = if netlink < report { (netlink, report) } else { (report, netlink) };
        let (low, high) = (low.cast_unsigned(), high.cast_unsigned());
        let close = |first: u32, last: u32| {
            first > last || libc::syscall(libc::SYS_close_range, first, last, 0) == 0
        };
        let closed = (low == 0 || close(0, low - 1))
            && close(low + 1, high - 1)
            && close(high + 1, u32::MAX);
        // Signals to the caller's group are not for it, nor does it keep the caller's directory
        // from being unmounted.
        libc::setsid();
        if !closed || libc::chdir(c"/".as_ptr()) != 0 {
            libc::_exit(1);
        }
        if libc::send(netlink, request.as_ptr().cast(), request.len(), 0) < 0 {
            libc::_exit(1);
        }
        let length = libc::recv(netlink, answer.as_mut_ptr().cast(), answer.len(), 0);
        if let Ok(length) = usize::try_from(length) {
            // The caller may have gone on; its end is closed then.
            libc::send(report, answer.as_ptr().cast(), length, libc::MSG_NOSIGNAL);
        }
        libc::_exit(0)
    }
}
