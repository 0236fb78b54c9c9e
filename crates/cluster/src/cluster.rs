//! The connected cluster store, and this node's record in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_model::block::BlockRecord;
use weft_model::node::VXLAN_PORT;
use weft_model::{Block, Endpoint, NetworkName, NodeName, NodeRecord};
use weft_store::{Expected, Revision, Store, keys, typed};

use crate::config::{NodeConfig, StoreConfig};
use crate::environment::Real;
use crate::{ClusterError, Environment, identity};

/// How often to try again when the own record changes while it is being written.
const REGISTER_TRIES: usize = 16;

/// The cluster store as this node sees it.
#[derive(Clone)]
pub struct Cluster {
    store: Arc<dyn Store>,
    node: NodeName,
    port: u16,
    machine_id: String,
    environment: Arc<dyn Environment>,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Its record.
    pub record: NodeRecord,
    /// Whether its agent is alive: whether a session of the agent holds the record.
    pub alive: bool,
}

impl Cluster {
    /// Prepares the store that `config` names. No I/O to the store happens yet. What `config` leaves
    /// open about Consul comes from the usual variables, which `variable` looks up.
    pub fn connect(
        config: &NodeConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ClusterError> {
        Ok(Self {
            store: open_store(&config.store, variable)?,
            node: config.node.clone(),
            port: config.port,
            machine_id: identity::machine_id()?,
            environment: Arc::new(Real::default()),
        })
    }

    /// A cluster on a store of the caller's, with time and chance of the caller's: for simulations.
    pub fn simulated(
        store: Arc<dyn Store>,
        node: NodeName,
        machine_id: String,
        environment: Arc<dyn Environment>,
    ) -> Self {
        Self { store, node, port: VXLAN_PORT, machine_id, environment }
    }

    /// Time and chance.
    pub fn environment(&self) -> &dyn Environment {
        &*self.environment
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether the store serves this one node only.
    pub fn is_single_node(&self) -> bool {
        self.store.is_single_node()
    }

    /// This node's name.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The record of this node with these VTEPs.
    pub fn own_record(&self, vteps: &[IpAddr]) -> NodeRecord {
        NodeRecord {
            machine_id: self.machine_id.clone(),
            vteps: vteps.to_vec(),
            port: self.port,
            removing: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Makes sure that the cluster knows this node by its name, and returns the revision of its
    /// record. With `vteps`, the record says so afterwards; without, it keeps those it has.
    ///
    /// Another machine's record under the same name is an error that names both.
    pub async fn register(&self, vteps: Option<&[IpAddr]>) -> Result<Revision, ClusterError> {
        let key = keys::node(&self.node);
        for _ in 0..REGISTER_TRIES {
            let (expected, record) = match self.store.get(&key).await? {
                None => (Expected::Absent, self.own_record(vteps.unwrap_or_default())),
                Some(entry) => {
                    let known: NodeRecord = typed::decode(&entry)?;
                    self.check_machine(&known)?;
                    if known.removing {
                        return Err(ClusterError::BeingRemoved { node: self.node.clone() });
                    }
                    let wanted = self.own_record(vteps.unwrap_or(&known.vteps));
                    if vteps.is_none() || wanted == known {
                        return Ok(entry.revision);
                    }
                    (Expected::Revision(entry.revision), wanted)
                }
            };
            self.store.compare_and_set(&key, expected, typed::encode(&record)?).await?;
        }
        Err(ClusterError::Store(weft_store::StoreError::Unreachable {
            store: self.store.describe(),
            cause: format!(
                "the record of node {} changes faster than it can be written",
                self.node
            ),
        }))
    }

    /// Turns away a machine that goes by another's name.
    pub fn check_machine(&self, known: &NodeRecord) -> Result<(), ClusterError> {
        if known.machine_id == self.machine_id {
            return Ok(());
        }
        Err(ClusterError::NameTaken {
            node: self.node.clone(),
            holder: known.machine_id.clone(),
            own: self.machine_id.clone(),
        })
    }

    /// All nodes that the cluster knows.
    pub async fn nodes(&self) -> Result<BTreeMap<NodeName, KnownNode>, ClusterError> {
        let mut nodes = BTreeMap::new();
        for entry in self.store.list(keys::nodes_prefix()).await?.entries {
            let Some(name) = keys::node_of(&entry.key) else { continue };
            let record = typed::decode(&entry)?;
            nodes.insert(name, KnownNode { record, alive: entry.holder.is_some() });
        }
        Ok(nodes)
    }

    /// The blocks of `network` and their owners.
    pub async fn blocks(
        &self,
        network: &NetworkName,
    ) -> Result<BTreeMap<Block, NodeName>, ClusterError> {
        let records = self.block_records(network).await?;
        Ok(records.into_iter().map(|(block, (record, _))| (block, record.node)).collect())
    }

    /// The blocks of `network`, their records and the revisions of these.
    pub async fn block_records(
        &self,
        network: &NetworkName,
    ) -> Result<BTreeMap<Block, (BlockRecord, Revision)>, ClusterError> {
        let listing = self.store.list(&keys::blocks_prefix(network)).await?;
        let mut blocks = BTreeMap::new();
        for entry in &listing.entries {
            let Some(block) = keys::block_of(&entry.key) else { continue };
            blocks.insert(block, (typed::decode(entry)?, entry.revision));
        }
        Ok(blocks)
    }

    /// The record of one block and its revision, if the block has an owner.
    pub async fn block_record(
        &self,
        network: &NetworkName,
        block: &Block,
    ) -> Result<Option<(BlockRecord, Revision)>, ClusterError> {
        let Some(entry) = self.store.get(&keys::block(network, block)).await? else {
            return Ok(None);
        };
        Ok(Some((typed::decode(&entry)?, entry.revision)))
    }

    /// The endpoints of `network`, by address.
    pub async fn endpoints(
        &self,
        network: &NetworkName,
    ) -> Result<BTreeMap<IpAddr, Endpoint>, ClusterError> {
        let listing = self.store.list(&keys::endpoints_prefix(network)).await?;
        let mut endpoints = BTreeMap::new();
        for entry in &listing.entries {
            let Some(address) = keys::endpoint_of(&entry.key) else { continue };
            endpoints.insert(address, typed::decode(entry)?);
        }
        Ok(endpoints)
    }
}

fn open_store(
    config: &StoreConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Arc<dyn Store>, ClusterError> {
    Ok(match config {
        StoreConfig::Local { dir } => Arc::new(weft_store::LocalStore::new(dir)),
        StoreConfig::Consul(consul) => {
            let mut options = weft_store::ConsulOptions::from_env(variable)?;
            if let Some(address) = &consul.address {
                options.address.clone_from(address);
            }
            options.token = consul.token.clone().or(options.token);
            options.ca_file = consul.ca_file.clone().or(options.ca_file);
            options.cert_file = consul.cert_file.clone().or(options.cert_file);
            options.key_file = consul.key_file.clone().or(options.key_file);
            Arc::new(weft_store::ConsulStore::new(&options, &consul.prefix)?)
        }
    })
}
