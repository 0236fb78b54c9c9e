//! Many networks in the store; the agent of a node that has some of them, and the agent of a node
//! that has none.

use std::path::Path;

use anyhow::{Context as _, Result};
use weft_model::{Network, Subnet};

use super::agent::{Agent, Load, load};
use super::host::{CONSUL, Host};
use super::seed::Seeder;
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_CONNECTIONS, GOAL_IDLE, GOAL_MEMORY, GOAL_UNCONCERNED, Options,
    SETTLE, Toggle, figure, idle, kilobytes_a_change,
};
use crate::report::{self, Goal};

/// Blocks that other nodes have in each network.
const BLOCKS: usize = 4;

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    let seeder = Seeder::new(CONSUL)?;
    let owners = seeder.nodes(options.nodes)?;
    let wanted = (0..options.networks)
        .map(|number| Ok((format!("net-{number}"), subnet(number)?)))
        .collect::<Result<Vec<_>>>()?;
    let networks = seeder.networks(&wanted)?;
    let attached = usize::from(options.attached).min(networks.len());

    let hosts = [Host::create(1)?, Host::create(2)?];
    let mut containers = vec![];
    for network in &networks[..attached] {
        containers.push(hosts[0].attach(weft, network)?);
    }
    for (number, network) in networks.iter().enumerate() {
        let free = seeder.free_blocks(network)?;
        let (_, owners) = owners.split_at(number % owners.len());
        seeder.blocks(network, &free[..BLOCKS.min(free.len())], owners)?;
    }

    let with = hosts[0].start_agent(weft, CONSUL)?;
    let without = hosts[1].start_agent(weft, CONSUL)?;
    let agents = [&with, &without];
    std::thread::sleep(SETTLE * 2);
    let quiet = idle(&agents, options.seconds)?;
    let owner = owners.first().context("no nodes")?;
    let mut under_changes_of = |network: &Network| -> Result<Vec<Load>> {
        let block = *seeder.free_blocks(network)?.first().context("no block is free")?;
        let mut toggle = Toggle { seeder: &seeder, network, block, owner, is_owned: false };
        load(&agents, options.seconds, |_| toggle.next())
    };
    let had = networks[..attached].first().map(&mut under_changes_of).transpose()?;
    let foreign = networks[attached..].first().map(&mut under_changes_of).transpose()?;

    report::title(&format!(
        "{} networks and {} nodes in the store; the agent of a host that has {attached} networks",
        networks.len(),
        options.nodes
    ));
    report_still(&with, quiet[0])?;
    if let Some(busy) = had {
        report_changes("a network that it has", busy[0], quiet[0], GOAL_CONCERNED);
    }
    if let Some(busy) = &foreign {
        report_changes("one that it has not", busy[0], quiet[0], GOAL_UNCONCERNED);
    }
    report::title("Of a host that has none");
    report_still(&without, quiet[1])?;
    if let Some(busy) = &foreign {
        report_changes("one that it has not", busy[1], quiet[1], GOAL_UNCONCERNED);
    }
    Ok(())
}

/// Prints what an agent takes while nothing changes.
fn report_still(agent: &Agent, quiet: Load) -> Result<()> {
    let memory = agent.memory()?;
    report::figure("resident memory", "MB", memory.resident, GOAL_MEMORY);
    report::figure("resident memory at its peak", "MB", memory.peak, GOAL_MEMORY);
    let connections = figure(agent.connections()?);
    report::figure("connections to Consul", "", connections, GOAL_CONNECTIONS);
    report::figure("processor time, idle", "%", quiet.cpu, GOAL_IDLE);
    Ok(())
}

/// Prints what an agent takes under one change a second.
fn report_changes(network: &str, busy: Load, quiet: Load, goal: Option<Goal>) {
    let what = format!("processor time, one change a second in {network}");
    report::figure(&what, "%", busy.cpu, GOAL_BUSY);
    let what = format!("received for each change in {network}");
    report::figure(&what, "KB", kilobytes_a_change(busy, quiet), goal);
}

/// A subnet of its own for each network.
fn subnet(number: u16) -> Result<Subnet> {
    let [high, low] = number.to_be_bytes();
    let second = 16 + u16::from(high);
    Ok(format!("10.{second}.{low}.0/24").parse()?)
}
