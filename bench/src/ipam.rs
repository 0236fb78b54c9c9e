//! ADD of weft-ipam and of the reference host-local, called by hand: how the time grows with the
//! reservations that there are, and with the calls at a time.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;
use weft_cluster::networks;
use weft_ledger::ledger::{Outcome, Want};
use weft_ledger::{Holder, Ledger};
use weft_model::{ContainerId, IfName, NetworkName};

use crate::attach::batch;
use crate::plugin::Plugin;
use crate::report::{self, Goal};
use crate::sandbox::Sandbox;
use crate::shell::run;
use crate::stats::Samples;

/// Options of this measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// Calls of each kind with each number of reservations.
    #[arg(long, default_value_t = 200)]
    calls: usize,

    /// The two numbers of reservations.
    #[arg(long, num_args = 2, value_delimiter = ',', default_value = "10,60000")]
    reservations: Vec<u32>,

    /// Calls that run at a time in the burst.
    #[arg(long, default_value_t = 64)]
    burst: usize,

    /// Bursts.
    #[arg(long, default_value_t = 20)]
    bursts: usize,
}

const NODE_CONFIG: &str = "/run/weft-bench-ipam.toml";
const DATA_DIR: &str = "/run/weft-bench-ipam";

/// Directory of host-local's reservations.
const REFERENCE_DIR: &str = "/var/lib/cni/networks";

/// One call of the peer to so many of weft's.
const PEER_SELDOM: usize = 5;

/// Has room for the greatest number of reservations.
const SUBNETS: [(&str, &str); 3] =
    [("few", "10.0.0.0/12"), ("many", "10.16.0.0/12"), ("burst", "10.32.0.0/12")];

pub(crate) fn measure(options: &Options, weft: &Path, reference: &Path) -> Result<()> {
    std::fs::write(
        NODE_CONFIG,
        format!(
            "node = \"bench\"\ndata_dir = \"{DATA_DIR}\"\n\
             [store]\ntype = \"local\"\naddress = \"{DATA_DIR}-store\"\n"
        ),
    )?;
    let [few, many, burst] =
        SUBNETS.map(|(name, subnet)| Network { name, subnet, weft, reference });
    for network in [&few, &many, &burst] {
        network.create()?;
    }
    compare_fills(options, &few, &many)?;
    compare_bursts(options, &burst)
}

/// A network of each plugin, of the same name.
struct Network<'a> {
    name: &'static str,
    subnet: &'static str,
    weft: &'a Path,
    reference: &'a Path,
}

impl Network<'_> {
    /// With one block that holds all, so that no ADD claims another.
    fn create(&self) -> Result<()> {
        run(&format!(
            "{}/weftctl --config {NODE_CONFIG} network create {} --subnet {} --block-bits 16",
            self.weft.display(),
            self.name,
            self.subnet,
        ))
        .map(drop)
    }

    fn plugins(&self) -> [Plugin; 2] {
        let weft = Plugin {
            name: "weft-ipam",
            folder: self.weft.into(),
            conf: json!({"cniVersion": "1.0.0", "name": self.name, "type": "weft-ipam"}),
            host: None,
            node_config: Some(NODE_CONFIG.into()),
        };
        // Run by hand as a main plugin, host-local wants its configuration under `ipam` all the
        // same.
        let ipam = json!({"type": "host-local", "subnet": self.subnet});
        let reference = Plugin {
            name: "host-local",
            folder: self.reference.into(),
            conf: json!({
                "cniVersion": "1.0.0", "name": self.name, "type": "host-local", "ipam": ipam,
            }),
            host: None,
            node_config: None,
        };
        [weft, reference]
    }

    /// Makes reservations of both plugins, by their own means: as many ADDs would take minutes.
    fn fill(&self, reservations: u32) -> Result<()> {
        let name = NetworkName::new(self.name)?;
        let network = networks::cached(Path::new(DATA_DIR), &name)?.context("no such network")?;
        let ledger = Ledger::open(Path::new(DATA_DIR), network)?;
        let folder = Path::new(REFERENCE_DIR).join(self.name);
        let first: Ipv4Addr = self.subnet.split('/').next().unwrap_or_default().parse()?;
        let mut last = first;
        for number in 0..reservations {
            let id = format!("resident-{number}");
            let holder = Holder::Attachment {
                container_id: ContainerId::new(&id)?,
                ifname: IfName::new("eth0")?,
            };
            let Outcome::Held(_) = ledger.reserve(&holder, Want::Any, None)? else {
                bail!("no room for {reservations} reservations");
            };
            // After the network's address, the gateway's and that of the first ADD.
            last = Ipv4Addr::from(u32::from(first) + 3 + number);
            std::fs::write(folder.join(last.to_string()), format!("{id}\r\neth0"))?;
        }
        std::fs::write(folder.join("last_reserved_ip.0"), last.to_string())?;
        Ok(())
    }
}

fn compare_fills(options: &Options, few: &Network<'_>, many: &Network<'_>) -> Result<()> {
    let sandbox = Sandbox::create("ipam")?;
    let resident = Sandbox::create("ipam-resident")?;
    let fills = [options.reservations[0], options.reservations[1]];
    for (network, fill) in [few, many].into_iter().zip(fills) {
        for plugin in network.plugins() {
            plugin.call("ADD", &resident)?;
        }
        network.fill(fill.saturating_sub(1))?;
    }
    let mut samples: [[Samples; 2]; 2] = Default::default();
    for round in 0..options.calls {
        for (which, samples) in samples.iter_mut().enumerate() {
            // The peer takes its time.
            if which == 1 && round % PEER_SELDOM != 0 {
                continue;
            }
            // What came before costs the next call its caches, so few and many follow upon it in
            // turns.
            for second in 0..2 {
                let fill = (round / PEER_SELDOM + round + second) % 2;
                let plugin = &[few, many][fill].plugins()[which];
                samples[fill].extend([plugin.call("ADD", &sandbox)?.took]);
                plugin.call("DEL", &sandbox)?;
            }
        }
    }
    report::title(&format!(
        "ADD of weft-ipam by hand, {} calls each; the peer is host-local, {} calls",
        options.calls,
        options.calls.div_ceil(PEER_SELDOM)
    ));
    for (fill, reservations) in fills.into_iter().enumerate() {
        for percent in [50, 99] {
            let [weft, peer] = [0, 1].map(|which: usize| samples[which][fill].percentile(percent));
            report::line(
                &format!("{reservations} reservations, p{percent}"),
                "ms",
                weft,
                peer,
                None,
            );
        }
    }
    for (which, name, goal) in [(0, "weft-ipam", Some(Goal::AtMost(1.2))), (1, "host-local", None)]
    {
        let [few, many] = [0, 1].map(|fill: usize| samples[which][fill].percentile(50));
        report::compare(&format!("{name}, p50"), "ms", ("many", many), ("few ", few), goal);
    }
    Ok(())
}

fn compare_bursts(options: &Options, network: &Network<'_>) -> Result<()> {
    let plugins = network.plugins();
    let resident = Sandbox::create("burst-resident")?;
    let sandboxes = (0..options.burst)
        .map(|number| Sandbox::create(&format!("burst-{number}")))
        .collect::<Result<Vec<_>>>()?;
    let mut whole: [Samples; 2] = Default::default();
    let mut calls: [Samples; 2] = Default::default();
    for plugin in &plugins {
        plugin.call("ADD", &resident)?;
    }
    for round in 0..options.bursts {
        for second in 0..2 {
            let which = (round + second) % 2;
            let started = Instant::now();
            batch(&plugins[which], "ADD", &sandboxes, &mut calls[which])?;
            whole[which].extend([started.elapsed()]);
            batch(&plugins[which], "DEL", &sandboxes, &mut Samples::default())?;
        }
    }
    report::title(&format!(
        "{} ADDs of weft-ipam by hand at the same time, {} times; the peer is host-local",
        options.burst, options.bursts
    ));
    let [weft, peer] = [&whole[0], &whole[1]].map(|samples| samples.percentile(50));
    report::line("all of them, median", "ms", weft, peer, None);
    for percent in [50, 99] {
        let [weft, peer] = [&calls[0], &calls[1]].map(|samples| samples.percentile(percent));
        report::line(&format!("one of them, p{percent}"), "ms", weft, peer, None);
    }
    Ok(())
}
