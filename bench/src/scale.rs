//! The node agent in a large cluster: how long it takes, and what it takes of its host.
//!
//! The agents are real, and so are Consul, the devices and the entries in the kernel. The other
//! nodes of the cluster are records in the store: that is all that an agent sees of them.
//!
//! - [`large`]: one network of many nodes and addresses.
//! - [`many`]: many networks, of which the node has some or none.
//! - [`spread`]: many agents, and how soon all of them know of a claimed block.

mod agent;
mod host;
mod large;
mod many;
mod monitor;
mod proxy;
mod seed;
mod spread;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use weft_model::{Block, Network, NodeName};

use crate::report::{self, Goal};
use agent::{Agent, Load};
use seed::Seeder;

/// Options of the benchmark of scale.
#[derive(Args)]
pub(crate) struct Options {
    /// The Consul server that the nodes share.
    #[arg(long, env = "WEFT_TEST_CONSUL", default_value = "/var/cache/weft-test/bin/consul")]
    consul: PathBuf,

    /// Parts to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "large,many,spread")]
    parts: Vec<Part>,

    /// Nodes in the store.
    #[arg(long, default_value_t = 1000)]
    nodes: u32,

    /// Networks in the store, where there are many.
    #[arg(long, default_value_t = 1000)]
    networks: u16,

    /// Networks that the node has devices of, where there are many.
    #[arg(long, default_value_t = 50)]
    attached: u16,

    /// Agents, where there are many.
    #[arg(long, default_value_t = 50)]
    agents: u16,

    /// Blocks of 64 addresses that the network has at the start, where there are many agents.
    #[arg(long, default_value_t = 256)]
    blocks: usize,

    /// Claims whose way to all agents is measured, one a second.
    #[arg(long, default_value_t = 100)]
    claims: u16,

    /// Seconds of each measurement of processor time and traffic.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One network of many nodes and addresses.
    Large,
    /// Many networks.
    Many,
    /// Many agents.
    Spread,
}

/// Time in which an agent comes to rest after it has programmed everything.
const SETTLE: Duration = Duration::from_secs(5);

const GOAL_MEMORY: Option<Goal> = Some(Goal::AtMost(40.0));
const GOAL_CONNECTIONS: Option<Goal> = Some(Goal::AtMost(24.0));
const GOAL_IDLE: Option<Goal> = Some(Goal::AtMost(0.5));
const GOAL_BUSY: Option<Goal> = Some(Goal::AtMost(3.0));
/// KB from Consul for each change of a network that the node has.
const GOAL_CONCERNED: Option<Goal> = Some(Goal::AtMost(32.0));
/// KB from Consul for each change of a network that the node has not.
const GOAL_UNCONCERNED: Option<Goal> = Some(Goal::AtMost(12.0));

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    host::make_underlay()?;
    // Who else wants the processor decides about times, and not about much else.
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let cores = std::thread::available_parallelism()?;
    report::title(&format!("The machine has {cores} cores and, before all this, a load of {load}"));
    for part in &options.parts {
        let _consul = crate::consul::start(&options.consul, host::CONSUL_IP)?;
        match part {
            Part::Large => large::measure(options, weft)?,
            Part::Many => many::measure(options, weft)?,
            Part::Spread => spread::measure(options, weft)?,
        }
    }
    Ok(())
}

/// A block that is claimed and given back in turns, by a node that has no agent.
struct Toggle<'a> {
    seeder: &'a Seeder,
    network: &'a Network,
    block: Block,
    owner: &'a NodeName,
    is_owned: bool,
}

impl Toggle<'_> {
    fn next(&mut self) -> Result<()> {
        if self.is_owned {
            self.seeder.release(self.network, &self.block)?;
        } else {
            self.seeder.claim(self.network, &self.block, self.owner)?;
        }
        self.is_owned = !self.is_owned;
        Ok(())
    }
}

/// KB (10³ bytes) from Consul for each change, at one a second. What an idle agent gets is not
/// counted.
fn kilobytes_a_change(busy: Load, idle: Load) -> f64 {
    (busy.bytes - idle.bytes).max(0.0) / 1e3
}

/// A number of things as a figure.
#[allow(clippy::cast_precision_loss, reason = "nothing here is counted beyond 2^52")]
fn figure(count: usize) -> f64 {
    count as f64
}

/// Runs the agents for some seconds in which nothing changes.
fn idle(agents: &[&Agent], seconds: u64) -> Result<Vec<Load>> {
    agent::load(agents, seconds, |_| Ok(()))
}
