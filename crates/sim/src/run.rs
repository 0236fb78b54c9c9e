//! The simulation itself: what happens next, and whether it should have.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use weft_allocator::block_manager::Policy;
use weft_allocator::release::{Reason, release};
use weft_ledger::Holder;
use weft_ledger::ledger::Want;
use weft_model::block::BlockRecord;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{
    ContainerId, HostNumber, IfName, Network, NetworkName, NetworkSpec, PoolIndex, Sticky, Vni,
};
use weft_store::{Op, keys, typed};

use crate::machine::{Ended, Node, Task};
use crate::oracle::Oracle;
use crate::server::{Answer, Sabotage};
use crate::world::{Answered, Sent, TaskId, World};

/// Settings of a simulation.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of steps.
    pub steps: u64,
    /// The network's subnet.
    pub subnet: String,
    /// The size of its blocks as a power of two.
    pub block_bits: u8,
    /// Most containers on a node.
    pub containers: usize,
    /// A fault to build in.
    pub sabotage: Sabotage,
    /// Print what concerns this: an address, a block, a node.
    pub trace: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 1000,
            steps: 1_000_000,
            subnet: "10.9.0.0/20".into(),
            block_bits: 2,
            containers: 6,
            sabotage: Sabotage::None,
            trace: None,
        }
    }
}

/// Outcome of a simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Steps taken.
    pub steps: u64,
    /// ADDs that got an address.
    pub added: u64,
    /// Of these, how many borrowed it.
    pub borrowed: u64,
    /// ADDs that did not.
    pub failed: u64,
    /// Containers deleted.
    pub deleted: u64,
    /// Calls, or answers, that were lost or came late.
    pub lost: u64,
    /// Programs killed, machines rebooted.
    pub crashes: u64,
    /// Nodes cut off.
    pub cuts: u64,
    /// Nodes removed.
    pub removals: u64,
    /// Most addresses held at a time.
    pub most_held: usize,
}

/// Runs a simulation. An error is a broken invariant, with the step at which it broke.
pub fn run(options: &Options) -> Result<Report> {
    let mut simulation = Simulation::new(options)?;
    for step in 0..options.steps {
        simulation.step().with_context(|| format!("seed {}, step {step}", options.seed))?;
    }
    simulation.settle().with_context(|| format!("seed {}, at the end", options.seed))?;
    Ok(simulation.report)
}

/// A simulation under way.
pub(crate) struct Simulation {
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) oracle: Oracle,
    pub(crate) report: Report,
    /// Rate of faults; nothing goes wrong any more while everything settles.
    pub(crate) calm: bool,
    pub(crate) containers: usize,
    pub(crate) next: u64,
    pub(crate) trace: Option<String>,
    _files: TempDir,
}

/// The id of a call whose caller has given up.
const ABANDONED: u64 = u64::MAX;

const POLICY: Policy = Policy { release_after: Duration::from_secs(20) };

impl Simulation {
    fn new(options: &Options) -> Result<Self> {
        // The ledger lives in memory in real life too.
        let files = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new())?;
        let world = World::new(options.seed, options.sabotage);
        let ipv4 = FamilyRecord::new(options.subnet.parse()?);
        let pool = PoolRecord {
            ipv4: Some(ipv4),
            block_bits: Some(options.block_bits),
            ..PoolRecord::default()
        };
        let network = NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&NetworkName::new("sim")?, Vni::FIRST_AUTOMATIC)?;
        let define = [Op::create(keys::network(network.name()), typed::encode(&network)?)];
        world.lock().server.execute(&crate::server::Call::Transact(define.to_vec()));
        let mut nodes = vec![];
        for number in 0..options.nodes {
            nodes.push(Node::new(number, files.path(), &world)?);
        }
        Ok(Self {
            world,
            network,
            nodes,
            oracle: Oracle::default(),
            report: Report::default(),
            calm: false,
            containers: options.containers,
            next: 0,
            trace: options.trace.clone(),
            _files: files,
        })
    }

    /// Prints what happens, if it concerns what is traced.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(wanted) = &self.trace {
            let what = what();
            if wanted.split(',').any(|wanted| what.contains(wanted)) {
                eprintln!("{:>8} {what}", self.report.steps);
            }
        }
    }

    pub(crate) fn chance(&self, below: u64) -> u64 {
        self.world.lock().random.u64(..below)
    }

    /// Lets one thing happen.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.report.steps += 1;
        let (sent, answered) = {
            let shared = self.world.lock();
            (shared.sent.len(), shared.answered.len())
        };
        match self.chance(100) {
            0..45 if sent > 0 => {
                self.execute();
                Ok(())
            }
            45..80 if answered > 0 => self.arrive(),
            80..90 => self.ring(),
            90..99 => self.container(),
            99 if !self.calm => self.trouble(),
            _ => {
                if answered > 0 {
                    self.arrive()
                } else if sent > 0 {
                    self.execute();
                    Ok(())
                } else {
                    self.ring()
                }
            }
        }
    }

    /// A call reaches the store, or does not.
    fn execute(&mut self) {
        let fate = if self.calm { u64::MAX } else { self.chance(100) };
        let mut shared = self.world.lock();
        let count = shared.sent.len();
        let at = shared.random.usize(..count);
        let Sent { id, node, task, call } = shared.sent.swap_remove(at);
        let reachable = self.calm || (self.nodes[node].connected && self.nodes[node].up);
        if !reachable || fate < 4 {
            self.report.lost += 1;
            if id != ABANDONED {
                shared.answered.push(Answered { id, node, task, answer: Answer::Failed });
            }
            // Lost, or only late: the caller gives up, the call stays on its way.
            if shared.random.u8(..4) > 0 {
                shared.sent.push(Sent { id: ABANDONED, node, task, call });
            }
            return;
        }
        let answer = shared.server.execute(&call);
        let lost = fate == 4;
        self.report.lost += u64::from(lost);
        self.tell(|| format!("node-{node} {call} -> {answer}{}", if lost { ", lost" } else { "" }));
        let answer = if lost { Answer::Failed } else { answer };
        if id != ABANDONED {
            shared.answered.push(Answered { id, node, task, answer });
        }
    }

    /// An answer arrives.
    fn arrive(&mut self) -> Result<()> {
        let Answered { id, node, task, answer } = {
            let mut shared = self.world.lock();
            let count = shared.answered.len();
            let at = shared.random.usize(..count);
            shared.answered.swap_remove(at)
        };
        self.world.deliver(id, answer);
        self.poll(node, task)
    }

    /// The next timer rings.
    fn ring(&mut self) -> Result<()> {
        let due = {
            let mut shared = self.world.lock();
            let Some(((time, _), task)) = shared.timers.pop_first() else { return Ok(()) };
            shared.time = shared.time.max(time);
            task
        };
        self.poll(due.0, due.1)
    }

    pub(crate) fn start(&mut self, node: usize, task: Task) -> Result<TaskId> {
        self.next += 1;
        let id = self.next;
        self.nodes[node].tasks.insert(id, task);
        self.poll(node, id)?;
        Ok(id)
    }

    /// Runs a task until it waits for something.
    fn poll(&mut self, number: usize, id: TaskId) -> Result<()> {
        self.world.lock().current = (number, id);
        let node = &mut self.nodes[number];
        let Some(task) = node.tasks.get_mut(&id) else { return Ok(()) };
        if let Poll::Ready(ended) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            node.tasks.remove(&id);
            self.ended(number, ended)?;
        }
        self.check(number)
    }

    fn ended(&mut self, number: usize, ended: Ended) -> Result<()> {
        match ended {
            Ended::Added(holder, Ok(reservation)) => {
                self.report.added += 1;
                self.tell(|| format!("node-{number} added {reservation:?}"));
                self.report.borrowed += u64::from(reservation.loan.is_some());
                let node = &mut self.nodes[number];
                node.containers.insert(holder, true);
                if node.exiled.is_none() {
                    self.oracle.hold(number, &reservation)?;
                }
                self.report.most_held = self.report.most_held.max(self.oracle.held());
            }
            Ended::Added(_, Err(_)) => self.report.failed += 1,
            Ended::Agent(error) => bail!("agent of node {number}: {error}"),
            Ended::Removed(Ok(())) => self.report.removals += 1,
            Ended::Removed(Err(_)) => {}
        }
        Ok(())
    }

    /// Checks what must hold of a node after each of its steps.
    pub(crate) fn check(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let (holds, rounds) = node.progress.lock().map_or((0, 0), |p| (p.holds, p.rounds));
        if node.exiled.is_some_and(|before| holds > before) && rounds > 0 {
            // It already knows what it has lost; what it still holds, it holds by right.
            node.exiled = None;
            let node = &self.nodes[number];
            self.tell(|| format!("node-{number} is back"));
            let ledger = node.ledger(&self.network)?;
            let stranded = ledger.stranded()?;
            for reservation in ledger.reservations()? {
                let told = node.containers.get(&reservation.holder) == Some(&true);
                if told && !stranded.contains(&reservation) {
                    self.oracle.hold(number, &reservation)?;
                }
            }
        }
        let node = &self.nodes[number];
        if node.exiled.is_some() || !node.data_dir.exists() {
            return Ok(());
        }
        let ledger = node.ledger(&self.network)?;
        let shared = self.world.lock();
        for block in ledger.blocks()? {
            let record = shared.server.peek(&keys::block(&self.network.id(), &block));
            let record: Option<BlockRecord> =
                record.and_then(|value| serde_json::from_slice(value).ok());
            if record.as_ref().map(|record| &record.node) != Some(node.cluster.node()) {
                bail!("node {number} uses block {block}, which is {record:?}");
            }
        }
        Ok(())
    }

    /// A container comes or goes, on a random node.
    fn container(&mut self) -> Result<()> {
        let number = usize::try_from(self.chance(self.nodes.len() as u64))?;
        if !self.nodes[number].up {
            return Ok(());
        }
        if self.nodes[number].agent.is_none() {
            return self.start_agent(number);
        }
        let full = self.nodes[number].containers.len() >= self.containers;
        if self.calm || full || self.chance(10) < 4 {
            return self.delete(number);
        }
        let want = if self.chance(5) == 0 {
            let pool = self.network.pool(PoolIndex::new(0)?).context("a pool")?;
            let (first, last) = (pool.first().get(), pool.last().get());
            Want::Exactly(PoolIndex::new(0)?, HostNumber::new(first + self.chance(last - first)))
        } else {
            Want::Any
        };
        self.next += 1;
        let holder = Holder::Attachment {
            container_id: ContainerId::new(format!("c{}", self.next))?,
            ifname: IfName::new("eth0")?,
        };
        let node = &mut self.nodes[number];
        node.containers.insert(holder.clone(), false);
        // Some come with an identity, of which there may be two at a time. They never expire, for
        // that goes by the real clock.
        let identity = self.chance(self.nodes.len() as u64);
        let sticky = (self.chance(5) == 0)
            .then(|| Sticky { identity: format!("s{identity}"), keep: u64::from(u32::MAX) });
        let task = self.nodes[number].add(&self.network, holder, want, sticky);
        self.start(number, task).map(drop)
    }

    /// DEL of some container. Its ADD has ended, or been killed.
    fn delete(&mut self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        if node.containers.is_empty() {
            return Ok(());
        }
        let at = self.world.lock().random.usize(..node.containers.len());
        let Some((holder, told)) = node.containers.iter().nth(at) else { return Ok(()) };
        let holder = holder.clone();
        if *told || node.tasks.len() <= 1 {
            self.tell(|| format!("node-{number} deletes {holder:?}"));
            self.oracle.drop_holder(number, &holder);
            let (data_dir, name) = (&self.nodes[number].data_dir, self.network.name());
            release(data_dir, name, &holder, Reason::Deleted)?;
            self.nodes[number].containers.remove(&holder);
            self.report.deleted += 1;
        }
        self.check(number)
    }

    pub(crate) fn start_agent(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        weft_cluster::networks::cache(&node.data_dir, &self.network)?;
        let task = node.agent(&self.network, POLICY);
        let id = self.start(number, task)?;
        self.nodes[number].agent = Some(id);
        Ok(())
    }
}
