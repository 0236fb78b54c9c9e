//! All networks in the cluster store, those with a record that cannot be read among them.
//!
//! Such a record stops nothing that exists, but which subnets its network has cannot be told: a
//! network that is made or extended meanwhile might take them.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::{Network, NetworkId, NetworkName, Vni};
use weft_store::{Entry, Op, StoreError, TxnOutcome, keys, typed};

use crate::networks::{CATALOGUE_TRIES, vni_owner};
use crate::{Cluster, ClusterError};

/// All networks in the cluster store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// Those whose records can be read, by name.
    pub networks: Vec<Network>,
    /// The others, each with the fault of its record.
    pub unreadable: BTreeMap<NetworkName, StoreError>,
}

impl Catalogue {
    fn of(entries: &[Entry]) -> Self {
        let mut all = Self::default();
        for entry in entries {
            let Some(name) = keys::network_of(&entry.key) else { continue };
            match typed::decode(entry) {
                Ok(network) => all.networks.push(network),
                Err(error) => drop(all.unreadable.insert(name, error)),
            }
        }
        all.networks.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Refuses to go on while subnets of some network are not known.
    pub(crate) fn require_complete(self) -> Result<(), ClusterError> {
        match self.unreadable.into_iter().next() {
            None => Ok(()),
            Some((network, fault)) => Err(ClusterError::Unreadable { network, fault }),
        }
    }
}

impl Cluster {
    /// All networks in the cluster store.
    pub async fn catalogue(&self) -> Result<Catalogue, ClusterError> {
        Ok(Catalogue::of(&self.store().list(keys::networks_prefix()).await?.entries))
    }

    /// All networks in the cluster store whose records can be read, by name.
    pub async fn networks(&self) -> Result<Vec<Network>, ClusterError> {
        Ok(self.catalogue().await?.networks)
    }

    /// Removes the network called `name`, whose record cannot be read, as
    /// [`remove_network`](Self::remove_network) does. Its incarnations and VNIs are those that other
    /// records of it name; they are returned. Nothing is done if the record can be read.
    pub async fn remove_unreadable(
        &self,
        name: &NetworkName,
    ) -> Result<Option<BTreeSet<NetworkId>>, ClusterError> {
        for _ in 0..CATALOGUE_TRIES {
            let Some(entry) = self.store().get(&keys::network(name)).await?.entry else {
                return Err(self.no_such_network(name));
            };
            if typed::decode::<Network>(&entry).is_ok() {
                return Ok(None);
            }
            let mut ops = vec![Op::delete_if(keys::network(name), entry.revision)];
            let mut ids = BTreeSet::new();
            for entry in self.store().list(keys::vnis_prefix()).await?.entries {
                let id = vni_owner(&entry).filter(|id| id.name == *name);
                let number = entry.key.strip_prefix(keys::vnis_prefix());
                let vni = number.and_then(|vni| Vni::new(vni.parse().ok()?).ok());
                if let (Some(id), Some(vni)) = (id, vni) {
                    ops.push(Op::put(keys::removed(&id), typed::encode(&vni.get())?));
                    ids.insert(id);
                }
            }
            if self.store().transact(&ops).await? == TxnOutcome::Committed {
                for id in &ids {
                    self.forget_if_left(id).await?;
                }
                return Ok(Some(ids));
            }
        }
        Err(ClusterError::Contended { network: name.clone() })
    }
}
