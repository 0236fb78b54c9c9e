//! A running `weftd`, and what it takes of its host: memory, processor time, connections, and bytes
//! from Consul.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell::{Daemon, run};

/// Unit of processor times in `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture that
/// Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running agent. It is killed when this is dropped.
pub(crate) struct Agent {
    daemon: Daemon,
    host: String,
    cable: String,
    log: PathBuf,
}

/// Memory in MB (10⁶ bytes).
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Resident memory now.
    pub resident: f64,
    /// The most that it was since the start.
    pub peak: f64,
}

/// The work of an agent over some time.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Processor time, in percent of one core.
    pub cpu: f64,
    /// Bytes on the cable towards the host, in a second: frames with their headers.
    pub bytes: f64,
    /// Duration in seconds.
    pub seconds: f64,
}

/// Counters of an agent at one moment.
struct Counters {
    ticks: f64,
    bytes: f64,
    at: Instant,
}

impl Agent {
    /// An agent that `daemon` is, on the host whose cable ends at the interface `cable` here.
    pub(crate) fn new(daemon: Daemon, host: &str, cable: &str, log: PathBuf) -> Self {
        Self { daemon, host: host.into(), cable: cable.into(), log }
    }

    /// Memory of the process.
    pub(crate) fn memory(&self) -> Result<Memory> {
        self.check()?;
        let status = self.proc("status")?;
        let megabytes = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            let kib: Option<f64> = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
            kib.map(|kib| kib * 1024.0 / 1e6).with_context(|| format!("no {key} in /proc"))
        };
        Ok(Memory { resident: megabytes("VmRSS:")?, peak: megabytes("VmHWM:")? })
    }

    /// TCP connections of the host to Consul. Nothing but the agent has any.
    pub(crate) fn connections(&self) -> Result<usize> {
        let all =
            run(&format!("ip netns exec {} ss -Htn state established dport = :8500", self.host))?;
        Ok(all.lines().count())
    }

    /// Fails if the agent has ended, with the end of its log.
    pub(crate) fn check(&self) -> Result<()> {
        // A process that has ended remains as a zombie until this program asks for its status.
        if !self.proc("stat")?.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")) {
            return Ok(());
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        bail!("weftd on {} has ended: {}", self.host, last.join(" | "))
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.daemon.pid());
        std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
    }

    fn counters(&self) -> Result<Counters> {
        self.check()?;
        // proc(5): utime is the 14th field and stime the 15th; the name, the 2nd, may have blanks.
        let stat = self.proc("stat")?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let times: Vec<f64> = fields.skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
        let path = format!("/sys/class/net/{}/statistics/tx_bytes", self.cable);
        let bytes = std::fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
        Ok(Counters { ticks: times.iter().sum(), bytes: bytes.trim().parse()?, at: Instant::now() })
    }
}

/// Lets the agents run for some seconds and calls `change` at the beginning of each with the
/// second's number. Where that takes longer than a second, the whole takes longer. Returns the load
/// of each agent.
pub(crate) fn load(
    agents: &[&Agent],
    seconds: u64,
    mut change: impl FnMut(u64) -> Result<()>,
) -> Result<Vec<Load>> {
    let before = agents.iter().map(|agent| agent.counters()).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    for second in 0..seconds {
        change(second)?;
        let end = started + Duration::from_secs(second + 1);
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    agents
        .iter()
        .zip(before)
        .map(|(agent, before)| {
            let now = agent.counters()?;
            let seconds = (now.at - before.at).as_secs_f64();
            Ok(Load {
                cpu: (now.ticks - before.ticks) / TICKS_PER_SECOND / seconds * 100.0,
                bytes: (now.bytes - before.bytes) / seconds,
                seconds,
            })
        })
        .collect()
}
