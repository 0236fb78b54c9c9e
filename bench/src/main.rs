//! Measures weft beside its peers, in one run, and prints ratios.
//!
//! Figures from a shared machine mean little by themselves. So every measurement of weft is taken
//! next to one of a peer that does the same work, calls of the two take turns, and what is printed
//! last is the ratio.
//!
//! The program makes network namespaces, mounts and interfaces: `scripts/bench` gives it private
//! ones.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

mod attach;
mod cluster;
mod consul;
mod ipam;
mod plugin;
mod report;
mod sandbox;
mod scale;
mod shell;
mod stats;
mod traffic;

/// Measures weft beside its peers. Run it by scripts/bench.
#[derive(Parser)]
struct Arguments {
    /// Folder of weft's programs.
    #[arg(long, env = "WEFT_BIN_DIR", default_value = "target/release", global = true)]
    weft: PathBuf,

    /// Folder of the reference plugins.
    #[arg(long, default_value = "/usr/lib/cni", global = true)]
    reference: PathBuf,

    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// ADD and DEL of weft + weft-ipam, and of the reference bridge + host-local.
    Attach(attach::Options),
    /// TCP throughput and round trips between containers on two hosts, and over a vxlan device made
    /// by hand.
    Traffic(traffic::Options),
    /// ADD of weft-ipam and of the reference host-local: with few and many reservations, and many
    /// at the same time.
    Ipam(ipam::Options),
    /// Addresses that a cluster of many nodes gives out in a second, on one Consul server.
    Cluster(cluster::Options),
    /// The node agent in a cluster of many nodes, networks and addresses.
    Scale(scale::Options),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    end_on_signals();
    // Plugins are started with this as CNI_PATH, and from other namespaces.
    let weft = arguments.weft.canonicalize()?;
    match arguments.what {
        What::Attach(options) => attach::measure(&options, &weft, &arguments.reference),
        What::Traffic(options) => traffic::measure(&options, &weft),
        What::Ipam(options) => ipam::measure(&options, &weft, &arguments.reference),
        What::Cluster(options) => cluster::measure(&options),
        What::Scale(options) => scale::measure(&options, &weft),
    }
}

/// Ends the program on SIGINT and SIGTERM. By scripts/bench it is the first process of its
/// namespace, and the kernel drops the signals that such a process has no handler for. What it has
/// started ends with it.
fn end_on_signals() {
    std::thread::spawn(|| -> Result<()> {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130)
        })
    });
}
