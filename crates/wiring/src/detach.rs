//! Takes a container off its network, and compares one with what it should be.
//!
//! The host end's name follows from the attachment, so the sandbox need not be entered, nor even
//! exist: removing one end of a veth removes both. Nor is the cluster store needed: whatever has
//! become of it, or of its certificates, containers can go.

use weft_datapath::attach;
pub use weft_datapath::attach::Expected;
use weft_datapath::netlink::Netlink;
use weft_model::{Attachment, device};

use crate::attach::Inside;
use crate::{Host, SegmentState, WiringError};

/// Removes the attachment's interface, and returns whether it was there.
pub async fn detach(netlink: &Netlink, attachment: &Attachment) -> Result<bool, WiringError> {
    Ok(attach::delete_port(netlink, &device::host_end(attachment)).await?)
}

impl Host {
    /// Differences between the attachment and what it should be, in words: of the network's
    /// devices, the host end, and the interface in the container.
    pub async fn differences(
        &self,
        attachment: &Attachment,
        inside: &Inside,
        expected: &Expected<'_>,
    ) -> Result<Vec<String>, WiringError> {
        let name = &attachment.network;
        let mut differences = vec![];
        match SegmentState::read(&self.config().data_dir, name) {
            None => differences.push(format!("network {name} is not on this host")),
            Some(state) => {
                if !self.is_intact(&state).await? {
                    differences.push(format!(
                        "the bridge or the VXLAN device of network {name} is missing or down"
                    ));
                }
                let host_end = device::host_end(attachment);
                let port = attach::check_port(self.netlink(), &host_end, state.bridge).await?;
                differences.extend(port);
            }
        }
        differences.extend(attach::check_interface(inside.netlink(), expected).await?);
        Ok(differences)
    }
}
