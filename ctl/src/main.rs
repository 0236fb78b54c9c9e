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
            eprintln!("weftctl: {}", words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each once, and a remedy where the user is not root.
fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors say their cause themselves.
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    // EACCES and EPERM. Consul's refusals have no number.
    if ["(os error 13)", "(os error 1)"].iter().any(|denied| text.contains(denied)) {
        text += "; run weftctl as root";
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_cause_once_and_says_that_root_is_needed() {
        let denied = std::io::Error::from_raw_os_error(13);
        let error = weft_files::FileError::io("read", "/run/weft/networks")(denied);
        assert_eq!(
            words(&error.into()),
            "read /run/weft/networks: Permission denied (os error 13); run weftctl as root"
        );
        let error = anyhow::anyhow!("no answer").context("ask");
        assert_eq!(words(&error), "ask: no answer");
    }
}
