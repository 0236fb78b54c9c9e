//! The holders of addresses, as an observer of all nodes sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail};
use weft_ledger::{Holder, Reservation};

/// An attachment of the simulation: the node's number and the holder.
pub(crate) type Owner = (usize, Holder);

/// All attachments that hold an address and may send from it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    by_address: BTreeMap<IpAddr, Owner>,
}

impl Oracle {
    /// An attachment was told its addresses.
    pub(crate) fn hold(&mut self, node: usize, reservation: &Reservation) -> Result<()> {
        for address in &reservation.addresses {
            let owner = (node, reservation.holder.clone());
            match self.by_address.get(address) {
                Some(other) if *other != owner => bail!(
                    "{address} is held by {} on node {} and by {} on node {node}",
                    other.1,
                    other.0,
                    owner.1
                ),
                _ => drop(self.by_address.insert(*address, owner)),
            }
        }
        Ok(())
    }

    /// An attachment does not use its addresses any more.
    pub(crate) fn drop_holder(&mut self, node: usize, holder: &Holder) {
        self.by_address.retain(|_, owner| (owner.0, &owner.1) != (node, holder));
    }

    /// A node went, with all its attachments.
    pub(crate) fn drop_node(&mut self, node: usize) {
        self.by_address.retain(|_, owner| owner.0 != node);
    }

    /// Count of held addresses.
    pub(crate) fn held(&self) -> usize {
        self.by_address.len()
    }
}
