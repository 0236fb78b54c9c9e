//! One network of many nodes and 65,536 addresses, and the agent of one more node in it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use weft_model::Network;

use super::agent::{Agent, load};
use super::host::{CONSUL, CONSUL_IP, Host};
use super::monitor::Monitor;
use super::proxy::{ByPath, Proxy};
use super::seed::{Seeder, addresses};
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_CONNECTIONS, GOAL_IDLE, GOAL_MEMORY, Options, SETTLE, Toggle,
    figure, idle, kilobytes_a_change,
};
use crate::report::{self, Goal};

/// Time for all entries to come.
const DEADLINE: Duration = Duration::from_secs(120);

/// Changes whose answers are looked at one by one.
const WATCHED: u64 = 6;

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    let seeder = Seeder::new(CONSUL)?;
    let owners = seeder.nodes(options.nodes)?;
    let networks = seeder.networks(&[("large".to_owned(), "10.9.0.0/16".parse()?)])?;
    let network = networks.first().context("no network")?;
    let host = Host::create(1)?;
    // The plugin programs what is in the store, so the other nodes' blocks come after it.
    let _container = host.attach(weft, network)?;
    let free = seeder.free_blocks(network)?;
    let (spare, taken) = free.split_first().context("the network is too small")?;
    seeder.blocks(network, taken, &owners)?;
    let wanted = addresses(network, taken);
    report::title(&format!(
        "One network: {} nodes, {} blocks and {} addresses of other nodes; one agent",
        options.nodes,
        taken.len(),
        wanted.len()
    ));

    let agent = start(weft, &host, network, &wanted)?;
    let owner = owners.first().context("no nodes")?;
    let mut toggle = Toggle { seeder: &seeder, network, block: *spare, owner, is_owned: false };
    observe(options, &agent, &mut toggle)?;
    drop(agent);
    watch_answers(weft, &host, &mut toggle)
}

/// Starts the agent, and waits until it has programmed the wanted addresses.
fn start(weft: &Path, host: &Host, network: &Network, wanted: &[Ipv4Addr]) -> Result<Agent> {
    let monitor = Monitor::open(&[&host.sandbox])?;
    let started = Instant::now();
    let agent = host.start_agent(weft, CONSUL)?;
    let seen = monitor.wait(wanted, DEADLINE)?;
    drop(monitor);
    let Some(Some(complete)) = seen.first() else {
        agent.check()?;
        bail!("the agent has not programmed everything after {DEADLINE:?}");
    };
    let entries = host.entries(network)?;
    if entries.iter().any(|count| *count != wanted.len()) {
        bail!("the kernel has {entries:?} entries for {} addresses", wanted.len());
    }
    let took = (*complete - started).as_secs_f64();
    report::figure("start to all entries in the kernel", "s", took, Some(Goal::AtMost(2.0)));
    Ok(agent)
}

/// Lets the agent run, first without changes and then with.
fn observe(options: &Options, agent: &Agent, toggle: &mut Toggle<'_>) -> Result<()> {
    std::thread::sleep(SETTLE);
    let resident = agent.memory()?.resident;
    report::figure("resident memory after that", "MB", resident, GOAL_MEMORY);
    let quiet = idle(&[agent], options.seconds)?[0];
    let connections = agent.connections()?;
    let busy = load(&[agent], options.seconds, |_| toggle.next())?[0];
    let connections = figure(connections.max(agent.connections()?));
    let memory = agent.memory()?;
    report::figure("resident memory after changes", "MB", memory.resident, GOAL_MEMORY);
    report::figure("resident memory at its peak", "MB", memory.peak, GOAL_MEMORY);
    report::figure("connections to Consul", "", connections, GOAL_CONNECTIONS);
    report::figure("processor time, idle", "%", quiet.cpu, GOAL_IDLE);
    report::figure("processor time, one change a second", "%", busy.cpu, GOAL_BUSY);
    let kilobytes = kilobytes_a_change(busy, quiet);
    report::figure("received for each change", "KB", kilobytes, GOAL_CONCERNED);
    Ok(())
}

/// Runs the agent behind a proxy, from a start to some changes.
fn watch_answers(weft: &Path, host: &Host, toggle: &mut Toggle<'_>) -> Result<()> {
    let proxy = Proxy::start(&format!("{CONSUL_IP}:8501"), &format!("{CONSUL_IP}:8500"))?;
    let agent = host.start_agent(weft, &format!("http://{CONSUL_IP}:8501"))?;
    std::thread::sleep(SETTLE);
    report_largest("at the start", &proxy.take());
    load(&[&agent], WATCHED, |_| toggle.next())?;
    let answers = proxy.take();
    report_largest("after changes", &answers);
    let changes = figure(usize::try_from(WATCHED)?);
    for (path, of_path) in answers {
        let (requests, bytes) = (figure(of_path.requests), figure(of_path.bytes));
        let (requests, kilobytes) = (requests / changes, bytes / 1e3 / changes);
        report::note(&format!("  {requests:.1} requests, {kilobytes:.2} KB a change: {path}"));
    }
    Ok(())
}

/// Prints the largest of all answers, and what it answered.
fn report_largest(when: &str, answers: &ByPath) {
    let Some((path, of_path)) = answers.iter().max_by_key(|(_, of_path)| of_path.largest) else {
        return;
    };
    report::figure(&format!("largest answer {when}"), "KB", figure(of_path.largest) / 1e3, None);
    report::note(&format!("  to {path}"));
}
