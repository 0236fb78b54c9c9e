//! Addresses that a cluster of many nodes gives out in a second, on one Consul server: in blocks,
//! as weft does; with a key for each address; and with one key for all of them. The same client,
//! and the same server.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::runtime::{Builder, Runtime};
use weft_allocator::acquire;
use weft_cluster::Cluster;
use weft_ledger::ledger::Want;
use weft_ledger::{Holder, Ledger};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{ContainerId, IfName, Network, NetworkName, NetworkSpec};
use weft_store::{ConsulOptions, ConsulStore, Expected, Store};

use crate::consul;
use crate::report::{self, Goal};
use crate::shell::run;

/// Options of this measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// The Consul server that the nodes share.
    #[arg(long, env = "WEFT_TEST_CONSUL", default_value = "/var/cache/weft-test/bin/consul")]
    consul: PathBuf,

    /// Nodes, a thread each.
    #[arg(long, default_value_t = 50)]
    nodes: u32,

    /// Seconds of each kind of giving addresses out.
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Rounds; in each, all kinds are measured, with fresh networks and keys.
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// The size of weft's blocks as a power of two; by default that of a network of this size.
    #[arg(long)]
    block_bits: Option<u8>,
}

const ADDRESS: &str = "http://127.0.0.1:8500";
const PREFIX: &str = "bench";

/// Directory of the nodes' reservations, a folder each.
const DATA_DIR: &str = "/run/weft-bench-cluster";

/// Addresses that the one key for all has room for: the rate falls with its size, and this is the
/// /16 of a small network.
const BITS: usize = 65_536;

pub(crate) fn measure(options: &Options) -> Result<()> {
    run("ip link set lo up")?;
    let _server = consul::start(&options.consul, "127.0.0.1")?;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..options.rounds {
        let network = create_network(round, options.block_bits)?;
        let kinds: [&(dyn Fn(u32) -> Result<Box<dyn Allocate>> + Sync); 3] = [
            &|number| Ok(Box::new(Blocks::of(number, &network)?)),
            &|number| Ok(Box::new(KeyEach::of(round, number, options.nodes)?)),
            &|_| Ok(Box::new(OneKey::of(round)?)),
        ];
        for (kind, rates) in kinds.into_iter().zip(&mut rates) {
            rates.push(rate(options, kind)?);
        }
    }
    let [blocks, key_each, one_key] = rates.map(|rates| crate::stats::median(&rates));
    report::title(&format!(
        "Addresses given out in a cluster of {} nodes, median of {} times {} s; no address twice",
        options.nodes, options.rounds, options.seconds
    ));
    report::single("all nodes together", "/s", blocks, Goal::AtLeast(20_000.0));
    report::line("a key for each address", "/s", blocks, key_each, None);
    report::line("one key for all", "/s", blocks, one_key, None);
    Ok(())
}

/// One node that gives addresses out.
trait Allocate {
    fn allocate(&mut self) -> Result<IpAddr>;
}

/// Lets all nodes give out addresses for some seconds; returns how many they gave out in a second.
fn rate(
    options: &Options,
    node: &(dyn Fn(u32) -> Result<Box<dyn Allocate>> + Sync),
) -> Result<f64> {
    let start = Barrier::new(options.nodes as usize);
    let duration = Duration::from_secs(options.seconds);
    let given = std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..options.nodes)
            .map(|number| {
                let start = &start;
                scope.spawn(move || {
                    let node = node(number);
                    start.wait();
                    work(node?, duration)
                })
            })
            .collect();
        nodes
            .into_iter()
            .map(|node| node.join().unwrap_or_else(|_| bail!("a node's thread panicked")))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut all = HashSet::new();
    for address in given.iter().flatten() {
        if !all.insert(*address) {
            bail!("{address} was given out twice");
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "there are not as many addresses")]
    Ok(all.len() as f64 / duration.as_secs_f64())
}

/// Only what was given out in time counts.
fn work(mut node: Box<dyn Allocate>, duration: Duration) -> Result<Vec<IpAddr>> {
    let mut given = vec![];
    let started = Instant::now();
    loop {
        let address = node.allocate()?;
        if started.elapsed() > duration {
            return Ok(given);
        }
        given.push(address);
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn store() -> Result<ConsulStore> {
    Ok(ConsulStore::new(&ConsulOptions::at(ADDRESS), PREFIX)?)
}

/// A subnet for each round.
fn create_network(round: usize, block_bits: Option<u8>) -> Result<Network> {
    let subnet = format!("10.{}.0.0/12", round * 16).parse()?;
    let gateway = None;
    let ipv4 = FamilyRecord { gateway, ..FamilyRecord::new(subnet) };
    let spec = NetworkSpec {
        mode: Some(weft_model::network::Mode::Internal),
        pools: vec![PoolRecord { ipv4: Some(ipv4), block_bits, ..PoolRecord::default() }],
        ..NetworkSpec::default()
    };
    let name = NetworkName::new(format!("round{round}"))?;
    let cluster = connect("bench", Path::new(DATA_DIR))?;
    Ok(runtime()?.block_on(cluster.create_network(&name, &spec))?)
}

fn connect(node: &str, data_dir: &Path) -> Result<Cluster> {
    consul::connect(ADDRESS, PREFIX, node, data_dir)
}

/// weft's blocks, by the functions that its IPAM plugin calls.
struct Blocks {
    runtime: Runtime,
    cluster: Cluster,
    data_dir: PathBuf,
    network: Network,
    given: u64,
}

impl Blocks {
    fn of(number: u32, network: &Network) -> Result<Self> {
        let node = format!("node{number}");
        let data_dir = Path::new(DATA_DIR).join(&node);
        let cluster = connect(&node, &data_dir)?;
        Ok(Self { runtime: runtime()?, cluster, data_dir, network: network.clone(), given: 0 })
    }
}

impl Allocate for Blocks {
    fn allocate(&mut self) -> Result<IpAddr> {
        self.given += 1;
        let holder = Holder::Attachment {
            container_id: ContainerId::new(format!("container-{}", self.given))?,
            ifname: IfName::new("eth0")?,
        };
        // As in the plugin, which opens the ledger for each call.
        let ledger = Ledger::open(&self.data_dir, self.network.clone())?;
        let reserve =
            acquire::reserve(&self.cluster, ledger, &holder, Want::Any, None.into(), &|| true);
        let reservation = self.runtime.block_on(reserve)?;
        reservation.addresses.first().copied().context("a reservation without an address")
    }
}

/// A key for each address, created if it is absent. Each node begins at a place of its own, so that
/// hardly ever two are after the same address: this scheme does not get better than that.
struct KeyEach {
    runtime: Runtime,
    store: ConsulStore,
    folder: String,
    next: u32,
}

impl KeyEach {
    fn of(round: usize, number: u32, nodes: u32) -> Result<Self> {
        let next = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (1 << 24) / nodes * number;
        Ok(Self { runtime: runtime()?, store: store()?, folder: format!("each{round}"), next })
    }
}

impl Allocate for KeyEach {
    fn allocate(&mut self) -> Result<IpAddr> {
        loop {
            let address = Ipv4Addr::from(self.next);
            self.next += 1;
            let key = format!("{}/{address}", self.folder);
            let created = self.store.compare_and_set(&key, Expected::Absent, b"{}".to_vec());
            if self.runtime.block_on(created)? {
                return Ok(address.into());
            }
        }
    }
}

/// One key for all addresses, a bit each: read, changed, and written if no other node wrote it
/// meanwhile.
struct OneKey {
    runtime: Runtime,
    store: ConsulStore,
    key: String,
}

impl OneKey {
    fn of(round: usize) -> Result<Self> {
        Ok(Self { runtime: runtime()?, store: store()?, key: format!("all{round}") })
    }
}

impl Allocate for OneKey {
    fn allocate(&mut self) -> Result<IpAddr> {
        self.runtime.block_on(async {
            loop {
                let (expected, mut bits) = match self.store.get(&self.key).await?.entry {
                    Some(entry) => (Expected::Revision(entry.revision), entry.value),
                    None => (Expected::Absent, vec![0; BITS / 8]),
                };
                let byte = bits.iter().position(|byte| *byte != u8::MAX).context("all taken")?;
                let bit = bits[byte].trailing_ones();
                bits[byte] |= 1 << bit;
                if self.store.compare_and_set(&self.key, expected, bits).await? {
                    let number = u32::try_from(byte * 8)? + bit;
                    return Ok(
                        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number).into()
                    );
                }
            }
        })
    }
}
