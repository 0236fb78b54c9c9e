//! `weftctl`: networks, nodes, blocks and addresses from the command line.

mod arguments;
mod block;
mod ipam;
mod network;
mod node;
mod output;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use weft_cluster::{Cluster, NodeConfig};

use arguments::{Arguments, Command};

/// The node, as every command works with it.
struct Session {
    config: NodeConfig,
    cluster: Cluster,
    output: output::Format,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("WEFT_LOG", "warn")).init();
    match run(arguments) {
        Ok((text, code)) => {
            output::print(&text);
            code
        }
        Err(error) => {
            eprintln!("weftctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<(String, ExitCode)> {
    let variable = |name: &str| std::env::var(name).ok();
    let config = NodeConfig::load(arguments.config.as_deref(), variable)?;
    let cluster = Cluster::connect(&config, variable)?;
    let session = Session { config, cluster, output: arguments.output };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let text = match arguments.command {
            Command::Network(command) => network::run(&session, command).await?,
            Command::Node(command) => node::run(&session, command).await?,
            Command::Block(command) => block::run(&session, command).await?,
            Command::Ipam(command) => return ipam::run(&session, command).await,
        };
        Ok((text, ExitCode::SUCCESS))
    })
}
