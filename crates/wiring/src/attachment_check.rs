//! Compares an attachment with what it should be: the network's devices, the host end, and the
//! interface in the container.

use weft_datapath::attach;
pub use weft_datapath::attach::Expected;
use weft_model::{Attachment, device};

use crate::attach::Inside;
use crate::error::WiringError;
use crate::host::Host;
use crate::segment_state::SegmentState;

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
