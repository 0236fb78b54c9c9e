//! ADD and DEL of weft and of the reference plugins, in turns.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::plugin::Plugin;
use crate::report::{self, Goal};
use crate::sandbox::Sandbox;
use crate::shell::{run, run_all};
use crate::stats::Samples;

/// Options of the measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// Calls of each kind, plugin and case.
    #[arg(long, default_value_t = 400)]
    calls: usize,

    /// Calls that run at a time, one case each.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    parallel: Vec<usize>,

    /// Networks of each kind and plugin that are new to the node.
    #[arg(long, default_value_t = 20)]
    networks: u8,
}

const NODE_CONFIG: &str = "/run/weft-bench.toml";

pub(crate) fn measure(options: &Options, weft: &Path, reference: &Path) -> Result<()> {
    make_host()?;
    for ip_masq in [false, true] {
        let networks = |number| {
            [weft_network(weft, ip_masq, number), reference_network(reference, ip_masq, number)]
        };
        let _residents = first_adds(networks, ip_masq, options.networks)?;
        let networks = networks(0);
        for &parallel in &options.parallel {
            compare(&networks, ip_masq, parallel, options.calls)?;
        }
    }
    Ok(())
}

/// One host with an interface for an underlay that leads nowhere: one node has no peers.
fn make_host() -> Result<()> {
    std::fs::write(
        NODE_CONFIG,
        "node = \"bench\"\nunderlay = \"under0\"\n[store]\ntype = \"local\"\n\
         address = \"/run/weft-bench-store\"\n",
    )?;
    run_all(
        "ip link set lo up
         ip link add name under0 type veth peer name cable
         ip link set cable up
         ip link set under0 up
         ip address add 198.18.0.1/24 dev under0",
    )
}

/// Both kinds of network have an address for the host and a default route; they differ in nothing
/// else that a container sees.
fn weft_network(folder: &Path, ip_masq: bool, number: u8) -> Plugin {
    let conf = json!({
        "cniVersion": "1.0.0", "name": format!("weft{}-{number}", u8::from(ip_masq)),
        "type": "weft", "isGateway": true, "ipMasq": ip_masq, "mtu": 1450,
        "ipam": {
            "type": "weft-ipam", "subnet": subnet(number, ip_masq, 0),
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    Plugin {
        name: "weft",
        folder: folder.into(),
        conf,
        host: None,
        node_config: Some(NODE_CONFIG.into()),
    }
}

fn reference_network(folder: &Path, ip_masq: bool, number: u8) -> Plugin {
    let name = format!("ref{}-{number}", u8::from(ip_masq));
    let conf = json!({
        "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": name,
        "isGateway": true, "ipMasq": ip_masq, "mtu": 1450,
        "ipam": {
            "type": "host-local", "subnet": subnet(number, ip_masq, 1),
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    Plugin { name: "bridge", folder: folder.into(), conf, host: None, node_config: None }
}

/// A subnet that no other network of this measurement has.
fn subnet(number: u8, ip_masq: bool, plugin: u16) -> String {
    format!("10.{}.0.0/16", u16::from(number) * 4 + u16::from(ip_masq) * 2 + plugin)
}

/// The first ADD of a network makes the bridge, claims the block and sets the firewall up. Returns
/// the containers of network 0, for a busy node always has some.
fn first_adds(
    networks: impl Fn(u8) -> [Plugin; 2],
    ip_masq: bool,
    count: u8,
) -> Result<[Sandbox; 2]> {
    let mut adds: [Samples; 2] = Default::default();
    let residents = first_add(&networks(0), 0, &mut adds)?;
    if ip_masq {
        expect_masquerade()?;
    }
    for number in 1..count {
        let networks = networks(number);
        let sandboxes = first_add(&networks, number.into(), &mut adds)?;
        for (network, sandbox) in networks.iter().zip(&sandboxes) {
            network.call("DEL", sandbox)?;
        }
    }
    report::title(&format!("First ADD of {count} networks on a node, {}", with(ip_masq)));
    // With masquerade the reference plugin makes rules for each container, not only for the first.
    let goal = (!ip_masq).then_some(Goal::AtMost(1.5));
    let [weft, peer] = [&adds[0], &adds[1]].map(|samples| samples.percentile(50));
    report::line("ADD p50", "ms", weft, peer, goal);
    Ok(residents)
}

/// Calls both plugins, each for a container in a network that is new to it.
fn first_add(
    networks: &[Plugin; 2],
    round: usize,
    adds: &mut [Samples; 2],
) -> Result<[Sandbox; 2]> {
    let sandboxes = [
        Sandbox::create(&format!("weft-resident-{round}"))?,
        Sandbox::create(&format!("bridge-resident-{round}"))?,
    ];
    for place in 0..2 {
        let which = (round + place) % 2;
        adds[which].extend([networks[which].call("ADD", &sandboxes[which])?.took]);
    }
    Ok(sandboxes)
}

/// A ratio of something with masquerade to something without would flatter.
fn expect_masquerade() -> Result<()> {
    if run("nft list table inet weft")?.contains("masquerade") {
        return Ok(());
    }
    bail!("weft's network with ipMasq has no masquerade rule");
}

fn compare(networks: &[Plugin; 2], ip_masq: bool, parallel: usize, calls: usize) -> Result<()> {
    let mut adds: [Samples; 2] = Default::default();
    let mut dels: [Samples; 2] = Default::default();
    for round in 0..calls.div_ceil(parallel) {
        // The first one changes with each round: the other finds warmer caches and a busier kernel.
        for place in 0..2 {
            let which = (round + place) % 2;
            let sandboxes = (0..parallel)
                .map(|number| {
                    Sandbox::create(&format!("{}-{round}-{number}", networks[which].name))
                })
                .collect::<Result<Vec<_>>>()?;
            batch(&networks[which], "ADD", &sandboxes, &mut adds[which])?;
            batch(&networks[which], "DEL", &sandboxes, &mut dels[which])?;
        }
    }
    report::title(&format!("{parallel} at a time, {}, {calls} calls each", with(ip_masq)));
    let goals = if ip_masq { [0.12, 0.09] } else { [0.3, 0.25] };
    for (verb, samples, goal) in [("ADD", adds, goals[0]), ("DEL", dels, goals[1])] {
        for (percent, goal) in [(50, Some(Goal::AtMost(goal))), (99, None)] {
            let [weft, peer] =
                [&samples[0], &samples[1]].map(|samples| samples.percentile(percent));
            report::line(&format!("{verb} p{percent}"), "ms", weft, peer, goal);
        }
    }
    Ok(())
}

/// Makes one call for each sandbox, all at the same time.
pub(crate) fn batch(
    network: &Plugin,
    verb: &str,
    sandboxes: &[Sandbox],
    samples: &mut Samples,
) -> Result<()> {
    let took = std::thread::scope(|scope| {
        let calls: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| scope.spawn(|| network.call(verb, sandbox).map(|call| call.took)))
            .collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap_or_else(|_| bail!("a call's thread panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    samples.extend(took);
    Ok(())
}

fn with(ip_masq: bool) -> &'static str {
    if ip_masq { "with ipMasq" } else { "without ipMasq" }
}
