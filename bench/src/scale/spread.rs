//! Many agents that have one network: how soon all of their kernels know of a block that another node claims.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_model::{Network, device};

use super::agent::{Agent, load};
use super::host::{CONSUL, Host};
use super::monitor::Monitor;
use super::seed::{Seeder, addresses};
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_MEMORY, Options, SETTLE, figure, idle, kilobytes_a_change,
};
use crate::report::{self, Goal};
use crate::sandbox::Sandbox;
use crate::shell::run;
use crate::stats::Samples;

/// How long a claim may take to all agents before it counts as this and the next one is made.
const LOST: Duration = Duration::from_secs(5);

/// How long all agents together may take to program what is there at the start.
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
    let Some(seeded) = free.len().checked_sub(claims).map(|rest| rest.min(options.blocks)) else {
        bail!("the network has {} free blocks and cannot take {claims} claims", free.len());
    };
    let (seeded, spare) = free.split_at(seeded);
    seeder.blocks(network, seeded, &owners)?;

    let agents =
        hosts.iter().map(|host| host.start_agent(weft, CONSUL)).collect::<Result<Vec<_>>>()?;
    let agents: Vec<&Agent> = agents.iter().collect();
    wait_for_programs(&hosts, network, &addresses(network, seeded))?;
    let sandboxes: Vec<&Sandbox> = hosts.iter().map(|host| &host.sandbox).collect();
    let monitor = Monitor::open(&sandboxes)?;
    let owner = owners.first().context("no nodes")?;
    let mut spare = spare.iter();
    let mut claim = |deadline: Duration| -> Result<Option<(Instant, Vec<Option<Instant>>)>> {
        let Some(block) = spare.next() else { return Ok(None) };
        let wanted = addresses(network, &[*block]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| monitor.wait(&wanted, deadline));
            let claimed = seeder.claim(network, block, owner)?;
            let seen = waiting.join().unwrap_or_else(|_| bail!("the monitor panicked"))?;
            Ok(Some((claimed, seen)))
        })
    };
    let first = claim(DEADLINE)?;
    if first.is_none_or(|(_, seen)| seen.iter().any(Option::is_none)) {
        agents.iter().try_for_each(|agent| agent.memory().map(drop))?;
        bail!("some agent has not programmed a claimed block after {DEADLINE:?}");
    }

    std::thread::sleep(SETTLE);
    let quiet = idle(&agents, options.seconds)?;
    let [mut each, mut all]: [Samples; 2] = Default::default();
    let mut measured = 0;
    let mut lost = 0;
    let started = Instant::now();
    let busy = load(&agents, options.claims.into(), |_| {
        if started.elapsed() > Duration::from_secs(1) * BUDGET * options.claims.into() {
            return Ok(());
        }
        let Some((claimed, seen)) = claim(LOST)? else { return Ok(()) };
        let took: Vec<Duration> =
            seen.iter().map(|seen| seen.map_or(LOST, |seen| seen - claimed)).collect();
        all.extend(took.iter().max().copied());
        each.extend(took);
        measured += 1;
        lost += usize::from(seen.contains(&None));
        Ok(())
    })?;

    report::title(&format!(
        "{} agents with one network of {} nodes and {} blocks; {measured} claims, one a second",
        options.agents,
        options.nodes,
        seeded.len() + hosts.len()
    ));
    let goal = Some(Goal::AtMost(200.0));
    report::figure("claim to the kernels of all agents, p50", "ms", all.percentile(50), None);
    report::figure("claim to the kernels of all agents, p99", "ms", all.percentile(99), goal);
    report::figure("claim to the kernel of one agent, p50", "ms", each.percentile(50), None);
    report::figure("claim to the kernel of one agent, p99", "ms", each.percentile(99), None);
    if lost > 0 {
        report::note(&format!("{lost} claims were not everywhere after {LOST:?}"));
    }
    let cpu = |loads: &[super::Load]| loads.iter().map(|load| load.cpu).collect::<Vec<_>>();
    let (quiet_cpu, busy_cpu) = (cpu(&quiet), cpu(&busy));
    report::figure("processor time of an agent, idle, mean", "%", mean(&quiet_cpu), None);
    report::figure("processor time of an agent meanwhile, mean", "%", mean(&busy_cpu), GOAL_BUSY);
    report::figure("processor time of an agent meanwhile, most", "%", most(&busy_cpu), GOAL_BUSY);
    // Where the claims took longer than planned, there was less than one a second.
    let rate = f64::from(measured) / busy.first().map_or(f64::NAN, |load| load.seconds);
    let kilobytes: Vec<f64> = busy
        .iter()
        .zip(&quiet)
        .map(|(busy, quiet)| kilobytes_a_change(*busy, *quiet) / rate)
        .collect();
    report::figure("received for each claim, mean", "KB", mean(&kilobytes), GOAL_CONCERNED);
    let memory = agents.iter().map(|agent| agent.memory()).collect::<Result<Vec<_>>>()?;
    let peaks: Vec<f64> = memory.iter().map(|memory| memory.peak).collect();
    report::figure("resident memory at its peak, most", "MB", most(&peaks), GOAL_MEMORY);
    Ok(())
}

/// Waits until each agent has programmed something: the rest comes in the same pass.
fn wait_for_programs(
    hosts: &[Host],
    network: &Network,
    seeded: &[std::net::Ipv4Addr],
) -> Result<()> {
    let Some(address) = seeded.last() else { return Ok(()) };
    let bridge = device::bridge(network.vni());
    let deadline = Instant::now() + DEADLINE;
    for host in hosts {
        let show = format!("ip -n {} neigh show {address} dev {bridge}", host.sandbox.name);
        while !run(&show)?.contains("PERMANENT") {
            if Instant::now() > deadline {
                bail!("{} has programmed nothing after {DEADLINE:?}", host.sandbox.name);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figure(figures.len())
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::max)
}
