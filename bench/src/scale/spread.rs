//! Many agents that have one network: how soon all of their kernels know of a block that another
//! node claims.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_model::{Block, Network, NodeName};

use super::agent::{Agent, load};
use super::host::{CONSUL, Host};
use super::monitor::Monitor;
use super::seed::{Seeder, addresses};
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_IDLE, GOAL_MEMORY, Options, SETTLE, figure, idle,
    kilobytes_a_change,
};
use crate::report::{self, Goal};
use crate::sandbox::Sandbox;
use crate::stats::Samples;

/// Time after which a claim counts as this and the next one is made.
const LOST: Duration = Duration::from_secs(5);

/// Time for all agents to program what is there at the start.
const DEADLINE: Duration = Duration::from_secs(180);

/// Seconds that all claims together may take, for each claim.
const BUDGET: u32 = 2;

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    let seeder = Seeder::new(CONSUL)?;
    let owners = seeder.nodes(options.nodes)?;
    let networks = seeder.networks(&[("spread".to_owned(), "10.9.0.0/16".parse()?)])?;
    let network = networks.first().context("no network")?;
    let hosts = (1..=options.agents).map(Host::create).collect::<Result<Vec<_>>>()?;
    let _containers =
        hosts.iter().map(|host| host.attach(weft, network)).collect::<Result<Vec<_>>>()?;
    let free = seeder.free_blocks(network)?;
    // One claim more than is measured: the first waits for agents that are still at work.
    let claims = usize::from(options.claims) + 1;
    let Some(room) = free.len().checked_sub(claims) else {
        bail!("the network has {} free blocks and cannot take {claims} claims", free.len());
    };
    let (taken, spare) = free.split_at(room.min(options.blocks));
    report::title(&format!(
        "{} agents with one network of {} nodes and {} blocks, and {} claims, one a second",
        options.agents,
        options.nodes,
        taken.len() + hosts.len(),
        options.claims
    ));

    let agents =
        hosts.iter().map(|host| host.start_agent(weft, CONSUL)).collect::<Result<Vec<_>>>()?;
    // All agents start at the same time here, and each that registers is a change to all others.
    // That is over before they have much to program.
    std::thread::sleep(SETTLE);
    seeder.blocks(network, taken, &owners)?;
    wait_for_programs(&hosts, network, addresses(network, taken).len())?;
    let sandboxes: Vec<&Sandbox> = hosts.iter().map(|host| &host.sandbox).collect();
    let mut claims = Claims {
        seeder: &seeder,
        network,
        spare: spare.iter(),
        owner: owners.first().context("no nodes")?,
        monitor: Monitor::open(&sandboxes)?,
    };
    let first = claims.make(DEADLINE)?;
    if first.is_none_or(|took| took.contains(&None)) {
        agents.iter().try_for_each(Agent::check)?;
        bail!("some agent has not programmed a claimed block after {DEADLINE:?}");
    }
    std::thread::sleep(SETTLE);
    claim_each_second(options, &agents.iter().collect::<Vec<_>>(), &mut claims)
}

/// Claims of blocks, each by a node that has no agent.
struct Claims<'a> {
    seeder: &'a Seeder,
    network: &'a Network,
    spare: std::slice::Iter<'a, Block>,
    owner: &'a NodeName,
    monitor: Monitor,
}

impl Claims<'_> {
    /// Claims a block, and returns how long it took to each agent's kernel, as far as it got there
    /// within the deadline. Nothing comes back if no block is left.
    fn make(&mut self, deadline: Duration) -> Result<Option<Vec<Option<Duration>>>> {
        let Some(block) = self.spare.next() else { return Ok(None) };
        let wanted = addresses(self.network, &[*block]);
        let monitor = &self.monitor;
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| monitor.wait(&wanted, deadline));
            let claimed = self.seeder.claim(self.network, block, self.owner)?;
            let seen = waiting.join().unwrap_or_else(|_| bail!("the monitor panicked"))?;
            Ok(Some(seen.into_iter().map(|seen| Some(seen? - claimed)).collect()))
        })
    }
}

/// Claims a block a second, and prints what came of it.
fn claim_each_second(options: &Options, agents: &[&Agent], claims: &mut Claims<'_>) -> Result<()> {
    let quiet = idle(agents, options.seconds)?;
    let [mut each, mut all]: [Samples; 2] = Default::default();
    let mut made = 0;
    let mut lost = 0;
    let started = Instant::now();
    let busy = load(agents, options.claims.into(), |_| {
        if started.elapsed() > Duration::from_secs(1) * BUDGET * options.claims.into() {
            return Ok(());
        }
        let Some(took) = claims.make(LOST)? else { return Ok(()) };
        lost += usize::from(took.contains(&None));
        let took: Vec<Duration> = took.into_iter().map(|took| took.unwrap_or(LOST)).collect();
        all.extend(took.iter().max().copied());
        each.extend(took);
        made += 1;
        Ok(())
    })?;

    let goal = Some(Goal::AtMost(200.0));
    report::figure("claim to the kernels of all agents, p50", "ms", all.percentile(50), None);
    report::figure("claim to the kernels of all agents, p99", "ms", all.percentile(99), goal);
    report::figure("claim to the kernel of one agent, p50", "ms", each.percentile(50), None);
    report::figure("claim to the kernel of one agent, p99", "ms", each.percentile(99), None);
    if lost > 0 {
        report::note(&format!("{lost} of {made} claims were not everywhere after {LOST:?}"));
    }
    // Where claims took longer than planned, there was less than one a second.
    let rate = f64::from(made) / busy.first().map_or(f64::NAN, |load| load.seconds);
    if rate < 0.95 {
        report::note(&format!("there were {rate:.2} claims a second; extrapolated to one:"));
    }
    let at_one = |busy: f64, idle: f64| idle + (busy - idle) / rate;
    let cpu: Vec<f64> = busy.iter().zip(&quiet).map(|(b, q)| at_one(b.cpu, q.cpu)).collect();
    let idle_cpu: Vec<f64> = quiet.iter().map(|load| load.cpu).collect();
    report::figure("processor time of an agent, idle, mean", "%", mean(&idle_cpu), GOAL_IDLE);
    report::figure("processor time of an agent, one a second, mean", "%", mean(&cpu), GOAL_BUSY);
    report::figure("processor time of an agent, one a second, most", "%", most(&cpu), GOAL_BUSY);
    let kilobytes: Vec<f64> =
        busy.iter().zip(&quiet).map(|(b, q)| kilobytes_a_change(*b, *q) / rate).collect();
    report::figure("received for each claim, mean", "KB", mean(&kilobytes), GOAL_CONCERNED);
    let memory = agents.iter().map(|agent| agent.memory()).collect::<Result<Vec<_>>>()?;
    let peaks: Vec<f64> = memory.iter().map(|memory| memory.peak).collect();
    report::figure("resident memory at its peak, most", "MB", most(&peaks), GOAL_MEMORY);
    Ok(())
}

/// Waits until each agent has programmed all that is there at the start. Notifications of that are
/// more than a socket holds, so the kernel is asked.
fn wait_for_programs(hosts: &[Host], network: &Network, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut waiting: Vec<&Host> = hosts.iter().collect();
    loop {
        let mut still = vec![];
        for host in waiting {
            if host.entries(network)?.iter().any(|count| *count < wanted) {
                still.push(host);
            }
        }
        waiting = still;
        let Some(first) = waiting.first() else { return Ok(()) };
        if Instant::now() > deadline {
            let (count, name) = (waiting.len(), &first.sandbox.name);
            bail!(
                "{count} agents, such as that of {name}, have not programmed all after {DEADLINE:?}"
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figure(figures.len())
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::max)
}
