//! One network of many nodes and 65,536 addresses, and the agent of one more node in it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::host::{CONSUL, CONSUL_IP, Host};
use super::monitor::Monitor;
use super::proxy::Proxy;
use super::seed::{Seeder, addresses};
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_CONNECTIONS, GOAL_IDLE, GOAL_MEMORY, Options, SETTLE, Toggle,
    agent, figure, idle, kilobytes_a_change,
};
use crate::report::{self, Goal};

/// How long to wait for entries before giving up.
const DEADLINE: Duration = Duration::from_secs(120);

/// Changes whose answers are looked at one by one.
const LOOKED_AT: u64 = 6;

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    let seeder = Seeder::new(CONSUL)?;
    let owners = seeder.nodes(options.nodes)?;
    let networks = seeder.networks(&[("large".to_owned(), "10.9.0.0/16".parse()?)])?;
    let network = networks.first().context("no network")?;
    let host = Host::create(1)?;
    // The plugin programs what is in the store, so the other nodes' blocks come after it.
    let _container = host.attach(weft, network)?;
    let free = seeder.free_blocks(network)?;
    let (spare, seeded) = free.split_first().context("the network is too small")?;
    seeder.blocks(network, seeded, &owners)?;
    let wanted = addresses(network, seeded);

    let monitor = Monitor::open(&[&host.sandbox])?;
    let started = Instant::now();
    let agent = host.start_agent(weft, CONSUL)?;
    let seen = monitor.wait(&wanted, DEADLINE)?;
    drop(monitor);
    let Some(Some(complete)) = seen.first() else {
        agent.memory()?;
        bail!("the agent has not programmed everything after {DEADLINE:?}");
    };
    let entries = host.entries(network)?;
    if entries.iter().any(|count| *count != wanted.len()) {
        bail!("the kernel has {entries:?} entries for {} addresses", wanted.len());
    }

    std::thread::sleep(SETTLE);
    let after_start = agent.memory()?;
    let quiet = idle(&[&agent], options.seconds)?;
    let connections = agent.connections()?;
    let owner = owners.first().context("no nodes")?;
    let mut toggle = Toggle { seeder: &seeder, network, block: *spare, owner, is_owned: false };
    let busy = agent::load(&[&agent], options.seconds, |_| toggle.turn())?;
    let connections = connections.max(agent.connections()?);
    let memory = agent.memory()?;
    drop(agent);

    let proxy = Proxy::start(&format!("{CONSUL_IP}:8501"), &format!("{CONSUL_IP}:8500"))?;
    let agent = host.start_agent(weft, &format!("http://{CONSUL_IP}:8501"))?;
    std::thread::sleep(SETTLE);
    let at_start = proxy.take_largest();
    agent::load(&[&agent], LOOKED_AT, |_| toggle.turn())?;
    let at_change = proxy.take_largest();

    report::title(&format!(
        "One network: {} nodes, {} blocks and {} addresses of other nodes; one agent",
        options.nodes,
        seeded.len(),
        wanted.len()
    ));
    let took = (*complete - started).as_secs_f64();
    report::figure("start to all entries in the kernel", "s", took, Some(Goal::AtMost(2.0)));
    report::figure("resident memory after that", "MB", after_start.resident, GOAL_MEMORY);
    report::figure("resident memory after changes", "MB", memory.resident, GOAL_MEMORY);
    report::figure("resident memory at its peak", "MB", memory.peak, GOAL_MEMORY);
    report::figure("connections to Consul", "", figure(connections), GOAL_CONNECTIONS);
    let (quiet, busy) = (quiet[0], busy[0]);
    report::figure("processor time, idle", "%", quiet.cpu, GOAL_IDLE);
    report::figure("processor time, one block change a second", "%", busy.cpu, GOAL_BUSY);
    let kilobytes = kilobytes_a_change(busy, quiet);
    report::figure("received from Consul for each change", "KB", kilobytes, GOAL_CONCERNED);
    for (when, (path, bytes)) in [("at the start", at_start), ("after changes", at_change)] {
        report::figure(&format!("largest answer {when}"), "KB", figure(bytes) / 1e3, None);
        report::note(&format!("  to {path}"));
    }
    Ok(())
}
