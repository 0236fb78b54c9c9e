//! Many networks in the store; the agent of a node that has some of them, and the agent of a node that has none.

use std::path::Path;

use anyhow::{Context as _, Result};
use weft_model::{Network, Subnet};

use super::agent::{Load, load};
use super::host::{CONSUL, Host};
use super::seed::Seeder;
use super::{
    GOAL_BUSY, GOAL_CONCERNED, GOAL_CONNECTIONS, GOAL_IDLE, GOAL_MEMORY, GOAL_UNCONCERNED, Options,
    SETTLE, Toggle, figure, idle, kilobytes_a_change,
};
use crate::report;

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

    let agents = [hosts[0].start_agent(weft, CONSUL)?, hosts[1].start_agent(weft, CONSUL)?];
    let agents = [&agents[0], &agents[1]];
    std::thread::sleep(SETTLE * 2);
    let quiet = idle(&agents, options.seconds)?;
    let owner = owners.first().context("no nodes")?;
    let mut under_changes_of = |network: &Network| -> Result<Vec<Load>> {
        let block = *seeder.free_blocks(network)?.first().context("no block is free")?;
        let mut toggle = Toggle { seeder: &seeder, network, block, owner, is_owned: false };
        load(&agents, options.seconds, |_| toggle.turn())
    };
    let had = networks[..attached].first().map(&mut under_changes_of).transpose()?;
    let foreign = networks[attached..].first().map(&mut under_changes_of).transpose()?;

    for (which, (agent, count)) in agents.iter().zip([attached, 0]).enumerate() {
        report::title(&format!(
            "{} networks and {} nodes in the store; an agent whose host has {count} of the networks",
            networks.len(),
            options.nodes
        ));
        let memory = agent.memory()?;
        report::figure("resident memory", "MB", memory.resident, GOAL_MEMORY);
        report::figure("resident memory at its peak", "MB", memory.peak, GOAL_MEMORY);
        let connections = figure(agent.connections()?);
        report::figure("connections to Consul", "", connections, GOAL_CONNECTIONS);
        let quiet = quiet[which];
        report::figure("processor time, idle", "%", quiet.cpu, GOAL_IDLE);
        for (changes, has, busy) in [("had", which == 0, &had), ("foreign", false, &foreign)] {
            let Some(busy) = busy.as_ref().map(|loads| loads[which]) else { continue };
            // Without a network of its own, the other's networks are as foreign to it as any.
            if which == 1 && changes == "had" {
                continue;
            }
            let network = if has { "a network that it has" } else { "one that it has not" };
            let what = format!("processor time, one change a second in {network}");
            report::figure(&what, "%", busy.cpu, GOAL_BUSY);
            let what = format!("received for each change in {network}");
            let goal = if has { GOAL_CONCERNED } else { GOAL_UNCONCERNED };
            report::figure(&what, "KB", kilobytes_a_change(busy, quiet), goal);
        }
    }
    Ok(())
}

/// A subnet of its own for each network.
fn subnet(number: u16) -> Result<Subnet> {
    let [high, low] = number.to_be_bytes();
    let second = 16 + u16::from(high);
    Ok(format!("10.{second}.{low}.0/24").parse()?)
}
