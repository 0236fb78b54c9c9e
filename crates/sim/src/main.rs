//! `weft-sim`: runs simulations, one for each seed.
#![allow(clippy::print_stdout, reason = "reports are this program's purpose")]

use anyhow::Result;
use clap::{Parser, ValueEnum};
use weft_sim::{Options, Sabotage, run};

/// Simulates a cluster that shares one network's addresses.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Count of seeds to run, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Number of nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Number of steps for each seed.
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// Subnet of the network.
    #[arg(long, default_value = "10.9.0.0/20")]
    subnet: String,
    /// Size of its blocks as a power of two.
    #[arg(long, default_value_t = 2)]
    block_bits: u8,
    /// Most containers on a node.
    #[arg(long, default_value_t = 6)]
    containers: usize,
    /// A fault to build in: the run must fail.
    #[arg(long, value_enum, default_value_t = Fault::None)]
    sabotage: Fault,
    /// Print what concerns one of these, separated by commas: addresses, blocks, nodes, containers.
    #[arg(long)]
    trace: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    None,
    StaleLists,
    UncheckedTransactions,
    BlindDeletes,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let options = Options {
            seed,
            nodes: arguments.nodes,
            steps: arguments.steps,
            subnet: arguments.subnet.clone(),
            block_bits: arguments.block_bits,
            containers: arguments.containers,
            trace: arguments.trace.clone(),
            sabotage: match arguments.sabotage {
                Fault::None => Sabotage::None,
                Fault::StaleLists => Sabotage::StaleLists,
                Fault::UncheckedTransactions => Sabotage::UncheckedTransactions,
                Fault::BlindDeletes => Sabotage::BlindDeletes,
            },
        };
        let report = run(&options)?;
        println!("seed {seed}: {report:?}");
    }
    Ok(())
}
