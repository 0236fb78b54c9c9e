//! TCP throughput and round trips between containers on two hosts, over weft and over a vxlan
//! device made by hand.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::plugin::Plugin;
use crate::report::{self, Goal};
use crate::sandbox::Sandbox;
use crate::shell::{Daemon, run, run_all};
use crate::stats::{Samples, median};

/// Options of this measurement.
#[derive(Args)]
pub(crate) struct Options {
    /// The Consul server that the two nodes share.
    #[arg(long, env = "WEFT_TEST_CONSUL", default_value = "/var/cache/weft-test/bin/consul")]
    consul: PathBuf,

    /// Rounds; in each, both are measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,

    /// Seconds of TCP traffic in each round.
    #[arg(long, default_value_t = 3)]
    seconds: u32,

    /// Round trips in each round.
    #[arg(long, default_value_t = 20_000)]
    trips: usize,
}

/// Two containers on different hosts.
struct Pair {
    client: Sandbox,
    server: Sandbox,
    address: Ipv4Addr,
}

pub(crate) fn measure(options: &Options, weft: &Path) -> Result<()> {
    let _hosts = make_hosts()?;
    let (_daemons, over_weft) = attach_by_weft(&options.consul, weft)?;
    let by_hand = attach_by_hand()?;
    let pairs = [&over_weft, &by_hand];

    let mut throughput: [Vec<f64>; 2] = Default::default();
    let mut trips: [Samples; 2] = Default::default();
    for round in 0..options.rounds {
        for second in 0..2 {
            let which = (round + second) % 2;
            throughput[which].push(measure_throughput(pairs[which], options.seconds)?);
            trips[which].extend(measure_trips(pairs[which], options.trips)?);
        }
    }
    report::title(
        "Between containers on two hosts; the peer is a vxlan device and a bridge made by hand",
    );
    let [weft, peer] = throughput.map(|figures| median(&figures));
    report::line("TCP throughput, median", "Gbit/s", weft, peer, Some(Goal::AtLeast(0.97)));
    for (percent, goal) in [(50, Some(Goal::AtMost(1.05))), (99, None)] {
        let [weft, peer] = [&trips[0], &trips[1]].map(|samples| samples.percentile(percent) * 1e3);
        report::line(&format!("UDP round trip p{percent}"), "µs", weft, peer, goal);
    }
    Ok(())
}

/// Two hosts, plugged into one another.
fn make_hosts() -> Result<[Sandbox; 2]> {
    let hosts = [Sandbox::create("host1")?, Sandbox::create("host2")?];
    run_all(
        "ip -n host1 link add name eth0 type veth peer name eth0 netns host2
         ip -n host1 address add 198.18.0.1/24 dev eth0
         ip -n host2 address add 198.18.0.2/24 dev eth0
         ip -n host1 link set lo up
         ip -n host2 link set lo up
         ip -n host1 link set eth0 up
         ip -n host2 link set eth0 up",
    )?;
    Ok(hosts)
}

fn attach_by_weft(consul: &Path, weft: &Path) -> Result<(Vec<Daemon>, Pair)> {
    let mut daemons = vec![Daemon::start(&format!(
        "ip netns exec host1 {} agent -server -bootstrap-expect=1 -bind=198.18.0.1 \
         -client=198.18.0.1 -data-dir=/run/consul",
        consul.display()
    ))?];
    wait_until("Consul has a leader", || {
        Ok(run("ip netns exec host1 curl -sf http://198.18.0.1:8500/v1/health/node/localhost")
            .is_ok()
            && run("ip netns exec host1 curl -sf http://198.18.0.1:8500/v1/status/leader")?
                .contains("8300"))
    })?;

    let mut sandboxes = Vec::new();
    let mut address = None;
    for number in [1, 2] {
        let config = PathBuf::from(format!("/run/weft-host{number}.toml"));
        std::fs::write(
            &config,
            format!(
                "node = \"host{number}\"\nunderlay = \"eth0\"\n\
                 data_dir = \"/run/weft-host{number}\"\n\
                 [store]\ntype = \"consul\"\naddress = \"http://198.18.0.1:8500\"\n"
            ),
        )?;
        daemons.push(Daemon::start(&format!(
            "ip netns exec host{number} {}/weftd --config {}",
            weft.display(),
            config.display()
        ))?);
        let network = Plugin {
            name: "weft",
            folder: weft.into(),
            conf: json!({
                "cniVersion": "1.0.0", "name": "bench", "type": "weft", "isGateway": true,
                "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16"},
            }),
            host: Some(format!("host{number}")),
            node_config: Some(config),
        };
        let sandbox = Sandbox::create(&format!("weft{number}"))?;
        let mut result = Value::Null;
        wait_until("a node may claim blocks", || {
            match network.call("ADD", &sandbox) {
                Ok(call) => result = call.result,
                // A new Consul server takes no sessions for its first second or so.
                Err(error) if format!("{error:#}").contains("\"code\":11") => return Ok(false),
                Err(error) => return Err(error),
            }
            Ok(true)
        })?;
        address = result["ips"][0]["address"]
            .as_str()
            .and_then(|address| address.split('/').next()?.parse().ok());
        sandboxes.push(sandbox);
    }
    let (Some(server), Some(client), Some(address)) = (sandboxes.pop(), sandboxes.pop(), address)
    else {
        bail!("ADD returned no address");
    };
    wait_until("containers reach each other", || {
        Ok(run(&format!("ip netns exec weft1 busybox ping -c 1 -W 1 {address}")).is_ok())
    })?;
    Ok((daemons, Pair { client, server, address }))
}

/// The same devices as weft's, by `ip` and `bridge`: container, veth, bridge, vxlan; entries for
/// the other side; the same MTU. The VNI differs, and that is all.
fn attach_by_hand() -> Result<Pair> {
    let client = Sandbox::create("hand1")?;
    let server = Sandbox::create("hand2")?;
    for (number, other) in [(1, 2), (2, 1)] {
        run_all(&format!(
            "ip -n host{number} link add name hb type bridge
             ip -n host{number} link set hb mtu 1450 up
             ip -n host{number} link add name hx type vxlan id 77 dstport 4789 \
                local 198.18.0.{number} nolearning
             ip -n host{number} link set hx mtu 1450 master hb up
             ip -n host{number} link add name hv mtu 1450 type veth \
                peer name eth0 mtu 1450 netns hand{number}
             ip -n host{number} link set hv master hb up
             ip -n hand{number} link set eth0 address 02:42:0a:07:00:0{number} up
             ip -n hand{number} address add 10.7.0.{number}/16 dev eth0
             ip -n hand{number} neighbour add 10.7.0.{other} lladdr 02:42:0a:07:00:0{other} dev eth0
             bridge -n host{number} fdb add 02:42:0a:07:00:0{other} dev hx dst 198.18.0.{other} self
             bridge -n host{number} fdb add 02:42:0a:07:00:0{other} dev hx master static"
        ))?;
    }
    Ok(Pair { client, server, address: Ipv4Addr::new(10, 7, 0, 2) })
}

/// Runs iperf3 for some seconds and returns the received Gbit/s.
fn measure_throughput(pair: &Pair, seconds: u32) -> Result<f64> {
    let _server =
        Daemon::start(&format!("ip netns exec {} iperf3 --server --one-off", pair.server.name))?;
    wait_until("iperf3 listens", || {
        Ok(run(&format!("ip netns exec {} ss -Hltn sport = :5201", pair.server.name))?
            .contains("5201"))
    })?;
    let report = run(&format!(
        "ip netns exec {} iperf3 --client {} --time {seconds} --json",
        pair.client.name, pair.address
    ))?;
    let report: Value = serde_json::from_str(&report)?;
    let bits = report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .context("iperf3 reported no throughput")?;
    Ok(bits / 1e9)
}

/// Sends datagrams to and fro, one at a time, and returns how long each round trip took.
fn measure_trips(pair: &Pair, trips: usize) -> Result<Vec<Duration>> {
    const PORT: u16 = 9;
    let done = AtomicBool::new(false);
    // Sockets belong to the namespace that they were made in.
    let echo = pair.server.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    let client = pair.client.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    client.connect((pair.address, PORT))?;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    echo.set_read_timeout(Some(Duration::from_millis(100)))?;

    std::thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&echo, &done));
        let took: Result<Vec<_>> = (0..trips).map(|_| round_trip(&client)).collect();
        done.store(true, Ordering::Relaxed);
        answering.join().unwrap_or_else(|_| bail!("the answering thread panicked"))?;
        took
    })
}

fn round_trip(client: &UdpSocket) -> Result<Duration> {
    let started = Instant::now();
    client.send(&[0; 64])?;
    client.recv(&mut [0; 64]).context("a datagram or its answer was lost")?;
    Ok(started.elapsed())
}

fn answer(echo: &UdpSocket, done: &AtomicBool) -> Result<()> {
    let mut datagram = [0; 64];
    while !done.load(Ordering::Relaxed) {
        match echo.recv_from(&mut datagram) {
            Ok((length, from)) => drop(echo.send_to(&datagram[..length], from)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready()? {
        if Instant::now() > deadline {
            bail!("gave up waiting until {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
