//! The connected cluster store, as this node uses it.

use std::path::PathBuf;
use std::sync::Arc;

use weft_model::NodeName;
use weft_model::node::VXLAN_PORT;
use weft_store::{Expected, Op, Revision, Store, StoreError};

use crate::config::NodeConfig;
use crate::environment::Real;
use crate::store_identity::Note;
use crate::{ClusterError, Environment, identity, node_name};

/// The cluster store as this node sees it.
#[derive(Clone)]
pub struct Cluster {
    store: Arc<dyn Store>,
    node: NodeName,
    /// The directory of the node's files, in which its name is noted; absent in simulations.
    data_dir: Option<PathBuf>,
    port: u16,
    machine_id: String,
    environment: Arc<dyn Environment>,
    noted: Note,
}

impl Cluster {
    /// Prepares the store that `config` names. No I/O to the store happens yet. Consul's settings
    /// that `config` lacks come from its usual variables, which `variable` looks up.
    pub fn connect(
        config: &NodeConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ClusterError> {
        Ok(Self {
            store: weft_store::open(&config.store, variable).map_err(|error| match error {
                StoreError::Options { .. } => {
                    ClusterError::Config { path: config.path.clone(), reason: error.to_string() }
                }
                error => error.into(),
            })?,
            node: config.node.clone(),
            data_dir: Some(config.data_dir.clone()),
            port: config.port,
            machine_id: identity::machine_id()?,
            environment: Arc::new(Real::default()),
            noted: Note::below(&config.data_dir),
        })
    }

    /// A cluster on a store, clock and random number generator of the caller's: for simulations.
    pub fn simulated(
        store: Arc<dyn Store>,
        node: NodeName,
        machine_id: String,
        environment: Arc<dyn Environment>,
    ) -> Self {
        let noted = Note::default();
        Self { store, node, data_dir: None, port: VXLAN_PORT, machine_id, environment, noted }
    }

    /// Clock, timers and random numbers.
    pub fn environment(&self) -> &dyn Environment {
        &*self.environment
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns whether the store serves this one node only.
    pub fn is_single_node(&self) -> bool {
        self.store.is_single_node()
    }

    /// This node's name.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Notes this node's name among its files; refuses it if they are of another name. Called
    /// before anything that the cluster is asked or told in the node's name; reads one small file.
    pub fn claim_name(&self) -> Result<(), ClusterError> {
        self.data_dir.as_ref().map_or(Ok(()), |dir| node_name::claim(dir, &self.node))
    }

    /// Refuses this node's name if its files are of another one. Writes nothing.
    pub fn check_name(&self) -> Result<(), ClusterError> {
        self.data_dir.as_ref().map_or(Ok(()), |dir| node_name::check(dir, &self.node))
    }

    /// Identity of this machine.
    pub(crate) fn machine_id(&self) -> &str {
        &self.machine_id
    }

    /// This node's note of the store's identity.
    pub(crate) fn note(&self) -> &Note {
        &self.noted
    }

    /// UDP port on which this node receives VXLAN.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Adds to `ops` the writes that tell other nodes which groups of blocks have changed.
    pub fn with_revisions(&self, ops: Vec<Op>) -> Vec<Op> {
        weft_store::keys::with_revisions(ops, self.environment.random())
    }
}

/// Requires the key to be as it was read.
pub fn unchanged(key: String, revision: Revision) -> Op {
    Op::check(key, Expected::Revision(revision))
}
