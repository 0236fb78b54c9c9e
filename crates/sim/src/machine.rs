//! A node of the simulation: the node's files, and the programs that run on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use weft_allocator::address::acquire;
use weft_allocator::block_manager::{BlockManager, Policy};
use weft_allocator::{AddressGrant, AddressRequest, AllocatorError};
use weft_cluster::view::NetworkRequests;
use weft_cluster::{Cluster, ClusterError, Environment, NetworkView, networks};
use weft_ledger::ledger::Want;
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::{Addresses, Network, NetworkSpec, NodeName, Sticky};

use crate::world::{TaskId, World};

/// Outcome of a task.
#[derive(Debug)]
pub(crate) enum Ended {
    /// An ADD.
    Added(Holder, Result<Box<Reservation>, AllocatorError>),
    /// An agent, which does so only with an error.
    Agent(ClusterError),
    /// The removal of a node.
    Removed(Result<(), ClusterError>),
}

/// A program.
pub(crate) type Task = Pin<Box<dyn Future<Output = Ended>>>;

/// State of the agent, as it reports it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Counts how often the agent has taken hold of the node's record.
    pub(crate) holds: u64,
    /// Counts rounds since then that ended well and with changes read since then.
    pub(crate) rounds: u64,
}

/// A node.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) cluster: Cluster,
    pub(crate) data_dir: PathBuf,
    /// Running programs.
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) agent: Option<TaskId>,
    pub(crate) progress: Arc<std::sync::Mutex<Progress>>,
    /// True if the machine runs.
    pub(crate) up: bool,
    /// True if calls to the store get through.
    pub(crate) connected: bool,
    /// Somebody declared the node gone, after this many holds of its record: what it holds counts
    /// again when it knows what it has lost.
    pub(crate) exiled: Option<u64>,
    /// Containers, and whether they were told their address.
    pub(crate) containers: BTreeMap<Holder, bool>,
}

impl Node {
    pub(crate) fn new(number: usize, root: &Path, world: &World) -> anyhow::Result<Self> {
        let name = NodeName::new(format!("node-{number}"))?;
        let machine = format!("machine-{number}");
        let environment: Arc<dyn Environment> = Arc::new(world.clone());
        let cluster = Cluster::simulated(Arc::new(world.clone()), name, machine, environment);
        Ok(Self {
            number,
            cluster,
            data_dir: root.join(number.to_string()),
            tasks: BTreeMap::new(),
            agent: None,
            progress: Arc::default(),
            up: true,
            connected: true,
            exiled: None,
            containers: BTreeMap::new(),
        })
    }

    pub(crate) fn ledger(&self, network: &Network) -> Result<Ledger, AllocatorError> {
        Ok(Ledger::open(&self.data_dir, network.clone())?)
    }

    /// The program that ADD runs.
    pub(crate) fn add(
        &self,
        network: &Network,
        holder: Holder,
        want: Want,
        sticky: Option<Sticky>,
    ) -> Task {
        let (cluster, data_dir, network) =
            (self.cluster.clone(), self.data_dir.clone(), network.clone());
        Box::pin(async move {
            let request = AddressRequest {
                network: network.name().clone(),
                spec: NetworkSpec::default(),
                holder,
                wanted: match want {
                    Want::Any => vec![],
                    Want::Exactly(pool, host) => {
                        network.addresses(pool, host).iter().flat_map(Addresses::iter).collect()
                    }
                },
                sandbox: None,
                sticky,
            };
            let granted = async {
                networks::cache(&data_dir, &network)?;
                acquire(&data_dir, || Ok(cluster), &request, &|| true).await
            };
            let reserved = granted.await.map(AddressGrant::into_reservation);
            Ended::Added(request.holder, reserved.map(Box::new))
        })
    }

    /// The program that an administrator runs here to remove another node.
    pub(crate) fn remove(&self, name: NodeName) -> Task {
        let cluster = self.cluster.clone();
        Box::pin(async move { Ended::Removed(cluster.remove_node(&name).await.map(drop)) })
    }

    /// The agent.
    pub(crate) fn agent(&self, network: &Network, policy: Policy) -> Task {
        let (cluster, data_dir, network) =
            (self.cluster.clone(), self.data_dir.clone(), network.clone());
        let progress = self.progress.clone();
        let told = move |held: bool, rounds| {
            if let Ok(mut progress) = progress.lock() {
                progress.holds += u64::from(held);
                progress.rounds = rounds;
            }
        };
        Box::pin(async move {
            let mut manager =
                BlockManager::new(cluster.clone(), data_dir.clone(), network.id(), policy);
            loop {
                told(false, 0);
                let lease = match cluster.start_heartbeat(&[], Duration::from_secs(15)).await {
                    Ok(lease) => lease,
                    Err(error @ ClusterError::NameTaken { .. }) => return Ended::Agent(error),
                    Err(_) => {
                        cluster.environment().sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                told(true, 0);
                let mut rounds = 0;
                let mut seen = false;
                let (mut view, mut requests) = (NetworkView::default(), NetworkRequests::new());
                loop {
                    // What is watched comes late at times, each prefix for itself.
                    let late = if seen { cluster.environment().random() } else { 0 };
                    match read_view(&cluster, &network, &mut view, &mut requests, late).await {
                        Ok(()) => seen = true,
                        Err(_) => {
                            cluster.environment().sleep(Duration::from_secs(1)).await;
                            continue;
                        }
                    }
                    if manager.round(&view, &requests).await.is_ok() {
                        rounds += 1;
                        told(false, rounds);
                    }
                    let pause = cluster.environment().random() % 1000;
                    cluster.environment().sleep(Duration::from_millis(100 + pause)).await;
                    if matches!(cluster.store().renew_lease(&lease).await, Ok(false)) {
                        break;
                    }
                }
            }
        })
    }
}

/// The state that the agent's watches show. Each bit of `late` keeps one part of it from being
/// read, three in eight of them on average.
async fn read_view(
    cluster: &Cluster,
    network: &Network,
    view: &mut NetworkView,
    requests: &mut NetworkRequests,
    late: u64,
) -> Result<(), ClusterError> {
    let id = network.id();
    let is_late = |place: u64| (late >> (8 * place)) & 0xff > 160;
    if !is_late(0) {
        view.blocks = cluster.blocks(&id).await?;
    }
    if !is_late(1) {
        view.endpoints = cluster.endpoints(&id).await?;
    }
    if !is_late(2) {
        *requests = cluster.requests(&id).await?;
    }
    Ok(())
}
