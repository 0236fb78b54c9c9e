//! Definitions of networks: made and read in the cluster store, cached on the node.
//!
//! The cache is what lets a plugin start a container without asking the cluster. All that ever
//! changes in a definition is that pools are added at its end; where the agent runs it keeps the
//! cache current, and without it every claim of a block does.

use std::collections::BTreeMap;
use std::path::Path;

use weft_files::{self as files, FileError};
use weft_ledger::layout::{NetworkDir, networks_dir};
use weft_model::pool::PoolRecord;
use weft_model::{ModelError, Network, NetworkName, NetworkSpec, NodeName, Vni};
use weft_store::{Entry, Expected, MAX_OPS, Op, Revision, TxnOutcome, keys, typed};

use crate::{Cluster, ClusterError, view};

/// Attempts when another process makes or extends a network at the same time.
const CATALOGUE_TRIES: usize = 32;

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
    // Where the cache contradicts the configuration, the store decides who is out of date.
    let network = match cluster.network(name).await? {
        Some((network, _)) => network,
        None if spec.can_create() => cluster.create_network(name, spec).await?,
        None => return Err(cluster.no_such_network(name)),
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
    let (network, _) = cluster.existing_network(name).await?;
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

    fn no_such_network(&self, name: &NetworkName) -> ClusterError {
        ClusterError::NoSuchNetwork { network: name.clone(), store: self.store().describe() }
    }

    /// Like [`Cluster::network`], for callers that would remove what this host has of a network
    /// that is gone. Absence alone proves nothing: a store that was emptied lists no network
    /// either, and no record of this node, which has registered before it made anything.
    pub async fn network_unless_removed(
        &self,
        name: &NetworkName,
    ) -> Result<Option<(Network, Revision)>, ClusterError> {
        let known = self.network(name).await?;
        if known.is_none() && self.store().get(&keys::node(self.node())).await?.entry.is_none() {
            let (store, node) = (self.store().describe(), self.node().clone());
            return Err(ClusterError::NotInStore { store, node });
        }
        Ok(known)
    }

    /// All networks in the cluster store, by name.
    pub async fn networks(&self) -> Result<Vec<Network>, ClusterError> {
        let entries = self.store().list(keys::networks_prefix()).await?.entries;
        Ok(view::read_networks(&entries).into_values().collect())
    }

    /// Makes the network that `spec` describes, or returns the one that exists by that name if it
    /// agrees with `spec`.
    pub async fn create_network(
        &self,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<Network, ClusterError> {
        for _ in 0..CATALOGUE_TRIES {
            // Two networks that are made at once must not overlap either.
            let catalogue = self.store().get(keys::catalogue()).await?.entry;
            let existing = self.networks().await?;
            if let Some(network) = existing.iter().find(|network| network.name() == name) {
                agree(network, spec)?;
                return Ok(network.clone());
            }
            let vni = free_vni(&existing)?;
            let network = spec.to_network(name, vni)?;
            if let Some(conflict) = existing.iter().find_map(|other| network.conflict_with(other)) {
                return Err(conflict.into());
            }
            let ops = [
                Op::create(keys::network(name), typed::encode(&network)?),
                Op::create(keys::vni(network.vni()), typed::encode(name)?),
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
            let existing = self.networks().await?;
            let (network, revision) = self.existing_network(name).await?;
            let extended = network.extended(pools)?;
            if extended == network {
                return Ok(network);
            }
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
        let owner: NetworkName = typed::decode(&entry)?;
        if &owner == name {
            return Ok(());
        }
        Err(ClusterError::VniTaken { vni: vni.get(), owner: owner.to_string() })
    }

    /// Removes network `name` from the cluster store, with all its blocks and endpoints.
    ///
    /// The caller has made sure that nobody uses it; see [`Cluster::owners`].
    pub async fn remove_network(&self, network: &Network) -> Result<(), ClusterError> {
        let name = network.name();
        // The definition goes first: from then on nobody can claim a block.
        let ops = [Op::delete(keys::network(name)), Op::delete(keys::vni(network.vni()))];
        if let TxnOutcome::Conflict { .. } = self.store().transact(&ops).await? {
            return Err(ClusterError::Contended { network: name.clone() });
        }
        let mut left = vec![];
        for prefix in [
            keys::blocks_prefix(name),
            keys::endpoints_prefix(name),
            keys::sticky_prefix(name),
            keys::identities_prefix(name),
        ] {
            left.extend(self.store().list(&prefix).await?.entries);
        }
        let of_this = |entry: &Entry| {
            keys::request_of(&entry.key).is_some_and(|(_, network, _)| network == *name)
                || keys::revision_of(&entry.key).is_some_and(|(network, _)| network == *name)
        };
        let requests = self.store().list(keys::requests_prefix()).await?.entries;
        left.extend(requests.into_iter().filter(of_this));
        let revisions = self.store().list(keys::revisions_prefix()).await?.entries;
        left.extend(revisions.into_iter().filter(of_this));
        // As they were read: a network that is created again by this name meanwhile has keys of its
        // own. One that has changed since then costs its transaction only.
        let ops: Vec<Op> = left.into_iter().map(|e| Op::delete_if(e.key, e.revision)).collect();
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
        network: &NetworkName,
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

/// The lowest VNI that no network has, from where automatic numbering begins.
fn free_vni(existing: &[Network]) -> Result<Vni, ClusterError> {
    let mut vni = Vni::FIRST_AUTOMATIC;
    while existing.iter().any(|network| network.vni() == vni) {
        vni = vni.next().ok_or_else(|| {
            ClusterError::Model(ModelError::Key {
                key: "vni",
                value: Vni::MAX.to_string(),
                reason: "all VNIs are in use".into(),
            })
        })?;
    }
    Ok(vni)
}
