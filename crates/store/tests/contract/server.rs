//! A Consul server for one test or several, at loopback addresses of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_store::{ConsulOptions, ConsulStore, Store};

/// How long a server may take until it serves.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Sessions in seconds instead of the usual ten at least.
const SHORT_SESSIONS: &str = r#"session_ttl_min = "1s""#;

/// A running server. It ends with this value.
pub(crate) struct Consul {
    ip: String,
    dir: TempDir,
    config: String,
    process: Child,
}

impl Consul {
    /// A cluster of one, in memory, without anything in it.
    pub(crate) fn start() -> Self {
        let server = Self::launch(&format!("{SHORT_SESSIONS} {}", Self::in_memory()));
        server.wait_until_it_serves(None);
        server
    }

    /// One that knows `token` alone and refuses everybody else.
    pub(crate) fn start_with_token(token: &str) -> Self {
        let acl = format!(
            r#"acl {{ enabled = true default_policy = "deny" tokens {{ master = "{token}" }} }}"#
        );
        let server = Self::launch(&format!("{SHORT_SESSIONS} {acl} {}", Self::in_memory()));
        server.wait_until_it_serves(Some(token));
        server
    }

    /// One that waits for two others before it serves.
    pub(crate) fn start_without_leader() -> Self {
        let server = Self::launch("server = true bootstrap_expect = 3");
        let started = Instant::now();
        while std::net::TcpStream::connect((server.ip.as_str(), 8500)).is_err() {
            server.check_patience(started, "nothing listens");
        }
        server
    }

    /// The server that tests share: it lives as long as one of them uses it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Consul>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A store on this server, under `prefix`.
    pub(crate) fn store(&self, prefix: &str) -> ConsulStore {
        self.store_with_token(prefix, None)
    }

    /// The same, for the holder of a token.
    pub(crate) fn store_with_token(&self, prefix: &str, token: Option<&str>) -> ConsulStore {
        let token = token.map(str::to_owned);
        let options = ConsulOptions { token, ..ConsulOptions::at(self.url()) };
        ConsulStore::new(&options, prefix).unwrap()
    }

    /// Where its API is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:8500", self.ip)
    }

    /// Kills the server. What it held is lost.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, empty, at its old address.
    pub(crate) fn start_anew(&mut self) {
        self.process = spawn(&self.ip, &self.dir, &self.config);
        self.wait_until_it_serves(None);
    }

    /// What `-dev` sets, but with the addresses that `launch` gives, and without its chatter.
    fn in_memory() -> &'static str {
        "server = true bootstrap = true performance { raft_multiplier = 1 }"
    }

    fn launch(config: &str) -> Self {
        // The whole of 127.0.0.0/8 is this machine's. The process id keeps test programs apart, the
        // counter the servers of one.
        static COUNTER: AtomicU16 = AtomicU16::new(0);
        let (process, number) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let second = 64 + (process >> 8) % 64;
        let ip = format!("127.{second}.{}.{}", process & 0xff, number + 1);
        let dir = tempfile::tempdir().unwrap();
        let process = spawn(&ip, &dir, config);
        Self { ip, dir, config: config.to_owned(), process }
    }

    /// A leader alone is not enough: sessions can be made only once the server is in its catalogue.
    fn wait_until_it_serves(&self, token: Option<&str>) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = self.store_with_token("start", token);
        runtime.block_on(async {
            loop {
                match store.create_session("start", Duration::from_secs(10)).await {
                    Ok(session) => return store.destroy_session(&session).await.unwrap(),
                    Err(error) => self.check_patience(started, &error.to_string()),
                }
            }
        });
    }

    fn check_patience(&self, started: Instant, problem: &str) {
        if started.elapsed() > START_PATIENCE {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            panic!("Consul at {} does not start: {problem}\n{log}", self.ip);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(ip: &str, dir: &TempDir, config: &str) -> Child {
    let program = std::env::var_os("WEFT_TEST_CONSUL")
        .map_or_else(|| PathBuf::from("/var/cache/weft-test/bin/consul"), PathBuf::from);
    let data = dir.path().join("data");
    let _ = std::fs::remove_dir_all(&data);
    let log = File::create(dir.path().join("log")).unwrap();
    Command::new(&program)
        .args(["agent", "-node=test", "-log-level=warn"])
        .args([format!("-bind={ip}"), format!("-client={ip}")])
        .arg(format!("-data-dir={}", data.display()))
        .args(["-hcl", "ports { dns = -1 } disable_update_check = true", "-hcl", config])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("run {} (WEFT_TEST_CONSUL): {error}", program.display()))
}
