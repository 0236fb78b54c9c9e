//! Takes a container off its network.
//!
//! The host end's name follows from the attachment, so the sandbox need not be entered, nor even
//! exist: removing one end of a veth removes both. Nor is the cluster store needed: whatever has
//! become of it, or of its certificates, containers can go.

use weft_datapath::attach;
use weft_datapath::netlink::Netlink;
use weft_model::{Attachment, device};

use crate::error::WiringError;
use crate::host::Host;

/// Removes the attachment's interface, and returns whether it was there.
pub async fn detach(netlink: &Netlink, attachment: &Attachment) -> Result<bool, WiringError> {
    Ok(attach::delete_port(netlink, &device::host_end(attachment)).await?)
}

impl Host {
    /// Takes a container off its network: its interface stays, and has no carrier.
    pub async fn disconnect(&self, host_end: &str) -> Result<(), WiringError> {
        Ok(attach::disconnect_port(self.netlink(), host_end).await?)
    }
}
