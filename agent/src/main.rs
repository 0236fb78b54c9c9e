//! `weftd`: the node agent. Runs in the foreground, logs to standard error, stops on SIGTERM.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use log::{error, info};
use tokio::signal::unix::{SignalKind, signal};
use weft_cluster::{Cluster, NodeConfig};

/// Most threads for work that may block. Those that are not needed end after some seconds.
const BLOCKING_THREADS: usize = 64;

/// The node agent of weft: keeps this node's tunnels to its peers current.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The node's configuration file [default: $WEFT_CONFIG, or /etc/weft/weft.toml]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    limit_heaps();
    let arguments = Arguments::parse();
    let level = env_logger::Env::new().filter_or("WEFT_LOG", "info");
    env_logger::Builder::from_env(level).init();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Limits the heaps of the C library to two. It would make one for each thread, up to eight for
/// each processor, and each keeps what a large network once needed.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) is a function of the C library")]
fn limit_heaps() {
    const HEAPS: libc::c_int = 2;
    // SAFETY: takes two integers, and is called before there is another thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

/// Does nothing: this C library has one heap.
#[cfg(not(target_env = "gnu"))]
fn limit_heaps() {}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let config = NodeConfig::load(arguments.config.as_deref(), variable)?;
    let cluster = Cluster::connect(&config, variable)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!("stopped by {name}; the data plane stays as it is");
        };
        weftd::run(config, cluster, stop).await
    });
    // Passes that are under way on other threads end with the process, whatever they wait for;
    // dropping the runtime would wait for them.
    std::mem::forget(runtime);
    ended
}
