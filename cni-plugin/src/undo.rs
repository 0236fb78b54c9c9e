//! What a failed ADD takes back, in reverse order.

use log::warn;
use weft_cni::Request;
use weft_datapath::attach;
use weft_datapath::netlink::Netlink;

use crate::ipam::Ipam;

/// A step that was taken and can be taken back.
enum Step<'a> {
    /// A veth pair was made.
    Port { netlink: &'a Netlink, host_end: String },
    /// The IPAM plugin was asked for an address.
    Address { ipam: &'a Ipam, request: &'a Request },
}

/// The steps taken so far.
#[derive(Default)]
pub(crate) struct Undo<'a>(Vec<Step<'a>>);

impl<'a> Undo<'a> {
    /// Notes that the veth pair with this host end was made.
    pub(crate) fn port(&mut self, netlink: &'a Netlink, host_end: &str) {
        self.0.push(Step::Port { netlink, host_end: host_end.to_owned() });
    }

    /// Notes that the IPAM plugin was asked for an address.
    pub(crate) fn address(&mut self, ipam: &'a Ipam, request: &'a Request) {
        self.0.push(Step::Address { ipam, request });
    }

    /// Takes nothing back: what is there is an earlier call's.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Takes everything back. What fails is logged: the runtime calls DEL after a failed ADD, and
    /// that tries again.
    pub(crate) async fn run(mut self) {
        while let Some(step) = self.0.pop() {
            let failure = match step {
                Step::Port { netlink, host_end } => {
                    attach::delete_port(netlink, &host_end).await.err().map(|e| e.to_string())
                }
                Step::Address { ipam, request } => {
                    ipam.undo_add(request).err().map(|error| error.to_string())
                }
            };
            if let Some(failure) = failure {
                warn!("while undoing a failed ADD: {failure}");
            }
        }
    }
}
