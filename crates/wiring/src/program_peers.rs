//! Programs the kernel's tables with the addresses on other nodes.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use log::error;
use weft_cluster::{Members, NetworkView};
use weft_datapath::peers::bridged::{self, Devices};
use weft_datapath::peers::{PeerTable, Report};
use weft_model::NetworkName;

use crate::error::WiringError;
use crate::host::Host;
use crate::peer_table::{Contested, Here, peer_table};
use crate::segment_state::SegmentState;

impl Host {
    /// Makes the kernel's peers those of `view`, and returns what it has then. With the table that
    /// the kernel is known to have, only the difference is programmed; without, all is compared.
    pub async fn program_peers(
        &self,
        state: &SegmentState,
        view: &NetworkView,
        members: &Members,
        known: Option<&PeerTable>,
    ) -> Result<(Report, PeerTable), WiringError> {
        let (Some(vxlan), Some(vtep)) = (state.vxlan, state.vtep) else {
            return Ok((Report::default(), PeerTable::default()));
        };
        let network = &state.network;
        let here = Here::of(&self.config().data_dir, network, view)?;
        let (table, contested) =
            peer_table(view, members, network, &self.config().node, vtep, &here);
        self.report_contested(network.name(), contested);
        let devices = Devices { bridge: state.bridge, vxlan };
        let report = match known {
            Some(known) => {
                bridged::apply_change(self.netlink(), devices, network, known, &table).await?
            }
            None => bridged::reconcile(self.netlink(), devices, network, &table).await?,
        };
        Ok((report, table))
    }

    /// Makes the kernel's peers what the cluster store has now, after a comparison of everything.
    pub async fn refresh_peers(&self, state: &SegmentState) -> Result<Report, WiringError> {
        let view = self.cluster().network_view(&state.network.id()).await?;
        let members = self.cluster().members().await?;
        Ok(self.program_peers(state, &view, &members, None).await?.0)
    }

    /// Says once what two nodes lay claim to.
    fn report_contested(&self, network: &NetworkName, contested: BTreeSet<Contested>) {
        let mut reported = self.contested.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reported.entry(network.clone()).or_default();
        for Contested { what, node } in contested.difference(before) {
            error!(
                "network {network}: {what} is node {node}'s by the cluster store, but this node's \
                 by its own files; what is sent there stays on this host until the two agree"
            );
        }
        *before = contested;
    }
}
