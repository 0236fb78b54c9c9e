//! Definitions of networks: made and read in the cluster store, cached on the node.
//!
//! The cache is what lets a plugin start a container without asking the cluster. All that ever
//! changes in a definition is that pools are added at its end; where the agent runs it keeps the
//! cache current, and without it every claim of a block does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use log::warn;
use weft_files::{self as files, FileError};
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::pool::PoolRecord;
use weft_model::{
    Incarnation, ModelError, Network, NetworkId, NetworkName, NetworkSpec, NodeName, Vni,
};
use weft_store::{Entry, Expected, MAX_OPS, Op, Revision, TxnOutcome, keys, typed};

use crate::{Cluster, ClusterError};

/// Attempts when another process makes or extends a network at the same time.
pub(crate) const CATALOGUE_TRIES: usize = 32;

/// The definition that this node has cached, if any.
pub fn cached(data_dir: &Path, name: &NetworkName) -> Result<Option<Network>, ClusterError> {
    match files::json::load(&NetworkDir::new(data_dir, name).definition()) {
        Ok(network) => Ok(network.filter(|network: &Network| network.name() == name)),
        // A cache that cannot be read counts as none: the store has the definition.
        Err(FileError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All networks that this node has cached, by name.
pub fn all_cached(data_dir: &Path) -> Result<Vec<Network>, ClusterError> {
    let mut networks = vec![];
    for name in files::names_in(&networks_dir(data_dir))? {
        if let Ok(name) = NetworkName::new(name) {
            networks.extend(cached(data_dir, &name)?);
        }
    }
    networks.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(networks)
}

/// Caches `network` on this node.
pub fn cache(data_dir: &Path, network: &Network) -> Result<(), ClusterError> {
    Ok(files::json::store(&NetworkDir::new(data_dir, network.name()).definition(), network)?)
}

/// The network `name` as `spec` asks for it: from the cache, or else from the cluster store, made
/// there if it is missing and `spec` says how.
pub async fn resolve(
    data_dir: &Path,
    cluster: &Cluster,
    name: &NetworkName,
    spec: &NetworkSpec,
) -> Result<Network, ClusterError> {
    if let Some(network) = cached(data_dir, name)?
        && agree(&network, spec).is_ok()
    {
        return Ok(network);
    }
    // Where the cache contradicts the configuration, the store decides who is out of date. What the
    // store has lost and this node has is not made again as another network.
    let network = match (cached(data_dir, name)?, cluster.network(name).await?) {
        (Some(known), _) => cluster.current(&known).await?.0,
        (None, Some((network, _))) => network,
        (None, None) if spec.can_create() => cluster.create_network(name, spec).await?,
        (None, None) => return Err(cluster.no_such_network(name)),
    };
    agree(&network, spec)?;
    cache(data_dir, &network)?;
    Ok(network)
}

/// The definition of network `name` in the cluster store, cached: it may have got pools since it
/// was cached last.
pub async fn renew(
    data_dir: &Path,
    cluster: &Cluster,
    name: &NetworkName,
) -> Result<Network, ClusterError> {
    let network = match cached(data_dir, name)? {
        Some(known) => cluster.current(&known).await?.0,
        None => cluster.existing_network(name).await?.0,
    };
    cache(data_dir, &network)?;
    Ok(network)
}

/// Checks that `spec` asks for nothing that `network` is not.
pub fn agree(network: &Network, spec: &NetworkSpec) -> Result<(), ClusterError> {
    match spec.difference(network)? {
        None => Ok(()),
        Some(difference) => {
            Err(ClusterError::Contradiction { network: network.name().clone(), difference })
        }
    }
}

impl Cluster {
    /// The definition of network `name` in the cluster store, with its revision.
    pub async fn network(
        &self,
        name: &NetworkName,
    ) -> Result<Option<(Network, Revision)>, ClusterError> {
        let entry = self.store().get(&keys::network(name)).await?.entry;
        let Some(entry) = entry else { return Ok(None) };
        Ok(Some((typed::decode(&entry)?, entry.revision)))
    }

    /// Like [`Cluster::network`], for callers to whom a network that is missing is an error.
    pub async fn existing_network(
        &self,
        name: &NetworkName,
    ) -> Result<(Network, Revision), ClusterError> {
        self.network(name).await?.ok_or_else(|| self.no_such_network(name))
    }

    pub(crate) fn no_such_network(&self, name: &NetworkName) -> ClusterError {
        ClusterError::NoSuchNetwork { network: name.clone(), store: self.store().describe() }
    }

    /// The network that this node knows as `id`, as it is in the cluster store now; nothing if it
    /// was removed. Absence alone proves nothing: a store that was emptied lists no network either.
    /// A network that is neither there nor recorded as removed is an error.
    pub async fn network_unless_removed(
        &self,
        id: &NetworkId,
    ) -> Result<Option<(Network, Revision)>, ClusterError> {
        let known = self.network(&id.name).await?;
        match known {
            Some((network, revision)) if network.id() == *id => Ok(Some((network, revision))),
            _ if self.is_removed(id).await? => Ok(None),
            Some(_) => Err(ClusterError::AnotherNetwork {
                network: id.name.clone(),
                store: self.store().describe(),
            }),
            None => Err(ClusterError::NotInStore {
                network: id.name.clone(),
                store: self.store().describe(),
            }),
        }
    }

    /// Returns whether the cluster store says that this very network was removed.
    pub async fn is_removed(&self, id: &NetworkId) -> Result<bool, ClusterError> {
        Ok(self.store().get(&keys::removed(id)).await?.entry.is_some())
    }

    /// The definition of a network that this node has, as it is in the store now. One that the
    /// store has lost is written back.
    pub async fn current(&self, known: &Network) -> Result<(Network, Revision), ClusterError> {
        let id = known.id();
        match self.network_unless_removed(&id).await {
            Err(ClusterError::NotInStore { .. }) => {}
            found => {
                let removed = || ClusterError::Removed { network: id.name.clone() };
                return found?.ok_or_else(removed);
            }
        }
        self.write_back(known).await?;
        self.existing_network(&id.name).await
    }

    /// Writes the definition of a network of this node into a store that has lost it.
    pub async fn write_back(&self, network: &Network) -> Result<(), ClusterError> {
        let id = network.id();
        let existing = self.networks().await?;
        if let Some(conflict) = existing.iter().find_map(|other| network.conflict_with(other)) {
            return Err(conflict.into());
        }
        let vni = keys::vni(network.vni());
        let mut ops = vec![
            Op::check(keys::removed(&id), Expected::Absent),
            Op::create(keys::network(&id.name), typed::encode(network)?),
        ];
        match self.store().get(&vni).await?.entry {
            None => ops.push(Op::create(vni, typed::encode(&id.to_string())?)),
            Some(entry) if vni_owner(&entry) == Some(id.clone()) => {}
            Some(entry) => {
                let owner = vni_owner(&entry).map_or_else(|| "?".to_owned(), |id| id.to_string());
                return Err(ClusterError::VniTaken { vni: network.vni().get(), owner });
            }
        }
        // A conflict means that another node was faster, or that the network was removed.
        self.store().transact(&ops).await?;
        warn!("network {}: its definition was missing in the store and is written back", id.name);
        Ok(())
    }

    /// Makes the network that `spec` describes, or returns the one that exists by that name if it
    /// agrees with `spec`.
    pub async fn create_network(
        &self,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<Network, ClusterError> {
        self.check_store().await?;
        for _ in 0..CATALOGUE_TRIES {
            // Two networks that are made at once must not overlap either.
            let catalogue = self.store().get(keys::catalogue()).await?.entry;
            let all = self.catalogue().await?;
            let existing = all.networks.clone();
            if let Some(network) = existing.iter().find(|network| network.name() == name) {
                agree(network, spec)?;
                return Ok(network.clone());
            }
            all.require_complete()?;
            let incarnation = Incarnation::of(self.environment().random());
            let vni = self.free_vni(incarnation).await?;
            let network = spec.to_network(name, vni)?.with_incarnation(incarnation);
            if let Some(conflict) = existing.iter().find_map(|other| network.conflict_with(other)) {
                return Err(conflict.into());
            }
            let ops = [
                Op::create(keys::network(name), typed::encode(&network)?),
                Op::create(keys::vni(network.vni()), typed::encode(&network.id().to_string())?),
                counted(catalogue)?,
            ];
            match self.store().transact(&ops).await? {
                TxnOutcome::Committed => return Ok(network),
                TxnOutcome::Conflict { .. } => {
                    self.check_vni(spec, name).await?;
                }
            }
        }
        Err(ClusterError::Contended { network: name.clone() })
    }

    /// Adds `pools` to the network called `name`, and returns what it is then. Nodes learn of it
    /// from their agents, or when they next claim a block.
    pub async fn extend_network(
        &self,
        name: &NetworkName,
        pools: &[PoolRecord],
    ) -> Result<Network, ClusterError> {
        for _ in 0..CATALOGUE_TRIES {
            // A network that is made at the same time must not overlap the new pools.
            let catalogue = self.store().get(keys::catalogue()).await?.entry;
            let all = self.catalogue().await?;
            let existing = all.networks.clone();
            let (network, revision) = self.existing_network(name).await?;
            let extended = network.extended(pools)?;
            if extended == network {
                return Ok(network);
            }
            all.require_complete()?;
            let mut others = existing.iter().filter(|other| other.name() != name);
            if let Some(conflict) = others.find_map(|other| extended.conflict_with(other)) {
                return Err(conflict.into());
            }
            let ops = [
                Op::update(keys::network(name), revision, typed::encode(&extended)?),
                counted(catalogue)?,
            ];
            if let TxnOutcome::Committed = self.store().transact(&ops).await? {
                return Ok(extended);
            }
        }
        Err(ClusterError::Contended { network: name.clone() })
    }

    /// Refuses a VNI that was asked for by number and is another network's.
    async fn check_vni(&self, spec: &NetworkSpec, name: &NetworkName) -> Result<(), ClusterError> {
        let Some(vni) = spec.vni else { return Ok(()) };
        let Some(entry) = self.store().get(&keys::vni(vni)).await?.entry else { return Ok(()) };
        let Some(owner) = vni_owner(&entry) else {
            return Err(ClusterError::VniTaken { vni: vni.get(), owner: "?".into() });
        };
        if self.is_removed(&owner).await? {
            let nodes = self.owners(&owner).await?.into_keys().map(|node| node.to_string());
            return Err(ClusterError::VniNotFree {
                vni: vni.get(),
                owner: owner.name,
                nodes: nodes.collect::<Vec<_>>().join(", "),
            });
        }
        if &owner.name == name {
            return Ok(());
        }
        Err(ClusterError::VniTaken { vni: vni.get(), owner: owner.name.to_string() })
    }

    /// A VNI that no network has, nor one that was removed and that some node has not left yet. The
    /// search begins at a place of the network's own: the next network that is made does not get
    /// the VNI that a host which has missed everything may still use.
    async fn free_vni(&self, incarnation: Incarnation) -> Result<Vni, ClusterError> {
        let taken: BTreeSet<String> = self
            .store()
            .list(keys::vnis_prefix())
            .await?
            .entries
            .into_iter()
            .map(|e| e.key)
            .collect();
        let mut vni =
            if self.is_single_node() { Vni::FIRST_AUTOMATIC } else { Vni::automatic(incarnation) };
        let first = vni;
        while taken.contains(&keys::vni(vni)) {
            vni = vni.next().unwrap_or(Vni::FIRST_AUTOMATIC);
            if vni == first {
                let reason = "all VNIs are in use".into();
                let (key, value) = ("vni", Vni::MAX.to_string());
                return Err(ModelError::Key { key, value, reason }.into());
            }
        }
        Ok(vni)
    }

    /// Removes `network` from the cluster store. Nodes that own blocks of it learn of that and
    /// leave it; the last one takes what is left of it.
    ///
    /// The caller has made sure that nobody uses it; see [`Cluster::owners`].
    pub async fn remove_network(&self, network: &Network) -> Result<(), ClusterError> {
        let id = network.id();
        for _ in 0..CATALOGUE_TRIES {
            let Some((_, revision)) = self.network_unless_removed(&id).await? else {
                return self.forget_if_left(&id).await;
            };
            // From here on nobody can claim a block.
            let ops = [
                Op::delete_if(keys::network(&id.name), revision),
                Op::put(keys::removed(&id), typed::encode(&network.vni().get())?),
            ];
            self.store().transact(&ops).await?;
        }
        Err(ClusterError::Contended { network: id.name })
    }

    /// The networks that are marked as those in which `node` owns blocks, or did.
    pub async fn owned_networks(&self, node: &NodeName) -> Result<Vec<NetworkId>, ClusterError> {
        let entries = self.store().list(&keys::owned_prefix(node)).await?.entries;
        Ok(entries.iter().filter_map(|entry| keys::owned_of(&entry.key)).collect())
    }

    /// Returns whether this node owns blocks of a network that is marked. If it does not, the mark
    /// goes; one that a claim writes again at the same time stays.
    pub async fn still_owns_blocks(&self, id: &NetworkId) -> Result<bool, ClusterError> {
        let key = keys::owned(self.node(), id);
        let entry = self.store().get(&key).await?.entry;
        if self.owners(id).await?.contains_key(self.node()) {
            return Ok(true);
        }
        if let Some(entry) = entry {
            self.store().transact(&[Op::delete_if(key, entry.revision)]).await?;
        }
        Ok(false)
    }

    /// Gives up all that this node has in a network that was removed.
    pub async fn leave_network(&self, id: &NetworkId) -> Result<(), ClusterError> {
        let blocks = self.block_records(id).await?.into_iter();
        let own = blocks.filter(|(_, stored)| stored.record.node == *self.node());
        let mut ops: Vec<Op> = own
            .map(|(block, stored)| Op::delete_if(keys::block(id, &block), stored.revision))
            .collect();
        ops.push(Op::delete(keys::owned(self.node(), id)));
        self.delete_each(ops).await?;
        self.forget_if_left(id).await
    }

    /// Deletes what is left of a network that was removed and in which no node owns a block. Its
    /// removal stays on record.
    pub(crate) async fn forget_if_left(&self, id: &NetworkId) -> Result<(), ClusterError> {
        if !self.is_removed(id).await? || !self.blocks(id).await?.is_empty() {
            return Ok(());
        }
        let mut left = vec![];
        for prefix in [
            keys::blocks_prefix(id),
            keys::endpoints_prefix(id),
            keys::sticky_prefix(id),
            keys::identities_prefix(id),
        ] {
            left.extend(self.store().list(&prefix).await?.entries);
        }
        let of_this = |entry: &Entry| {
            keys::request_of(&entry.key).is_some_and(|(_, network, _)| network == *id)
        };
        let requests = self.store().list(keys::requests_prefix()).await?.entries;
        left.extend(requests.into_iter().filter(of_this));
        if self.network(&id.name).await?.is_none() {
            let of_name = |entry: &Entry| {
                keys::revision_of(&entry.key).is_some_and(|(network, _)| network == id.name)
            };
            let revisions = self.store().list(keys::revisions_prefix()).await?.entries;
            left.extend(revisions.into_iter().filter(of_name));
        }
        let vnis = self.store().list(keys::vnis_prefix()).await?.entries;
        left.extend(vnis.into_iter().filter(|entry| vni_owner(entry).as_ref() == Some(id)));
        let ops = left.into_iter().map(|e| Op::delete_if(e.key, e.revision)).collect();
        self.delete_each(ops).await
    }

    /// Deletes as they were read, together where nothing has changed since.
    async fn delete_each(&self, ops: Vec<Op>) -> Result<(), ClusterError> {
        for part in ops.chunks(MAX_OPS / 2) {
            if let TxnOutcome::Conflict { .. } = self.store().transact(part).await? {
                for op in part {
                    self.store().transact(std::slice::from_ref(op)).await?;
                }
            }
        }
        Ok(())
    }

    /// The nodes that own blocks of `network`, each with how many.
    pub async fn owners(
        &self,
        network: &NetworkId,
    ) -> Result<BTreeMap<NodeName, usize>, ClusterError> {
        let mut owners = BTreeMap::new();
        for owner in self.blocks(network).await?.into_values() {
            *owners.entry(owner).or_default() += 1;
        }
        Ok(owners)
    }
}

/// Counts one more network or extension of one, unless somebody else has done so since `entry` was
/// read.
fn counted(entry: Option<Entry>) -> Result<Op, ClusterError> {
    let (expected, count) = match entry {
        None => (Expected::Absent, 0),
        Some(entry) => (Expected::Revision(entry.revision), typed::decode::<u64>(&entry)?),
    };
    let key = keys::catalogue().to_owned();
    Ok(Op::Write { key, expected, value: typed::encode(&(count + 1))? })
}

/// The network that an entry gives a VNI to.
pub(crate) fn vni_owner(entry: &Entry) -> Option<NetworkId> {
    typed::decode::<String>(entry).ok()?.parse().ok()
}
