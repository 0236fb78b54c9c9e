//! A Consul server for one test or several, at loopback addresses of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_store::{ConsulOptions, ConsulStore, Store};

/// Timeout of a server's start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Allows sessions of a second, instead of ten at least.
const SHORT_SESSIONS: &str = r#"session_ttl_min = "1s""#;

/// Name of the policy of tokens that tests create.
const POLICY: &str = "test";

/// A running server. It ends with this value.
pub(crate) struct Consul {
    ip: String,
    dir: TempDir,
    config: String,
    process: Child,
}

impl Consul {
    /// An empty cluster of one server.
    pub(crate) fn start() -> Self {
        let server = Self::launch(&format!("{SHORT_SESSIONS} {}", Self::in_memory()));
        server.wait_until_it_serves(None);
        server
    }

    /// One with access control, which denies everything to any token but `token`.
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
        while TcpStream::connect((server.ip.as_str(), 8500)).is_err() {
            server.check_timeout(started, "nothing listens");
        }
        server
    }

    /// The server that tests share. It ends when no test uses it.
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

    /// The same with a token.
    pub(crate) fn store_with_token(&self, prefix: &str, token: Option<&str>) -> ConsulStore {
        let token = token.map(str::to_owned);
        let options = ConsulOptions { token, ..ConsulOptions::at(self.url()) };
        ConsulStore::new(&options, prefix).unwrap()
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:8500", self.ip)
    }

    /// A new token with a policy of its own, created with the token `root`.
    pub(crate) fn create_token(&self, root: &str, rules: &str) -> String {
        self.call(root, "PUT", "acl/policy", &json!({ "Name": POLICY, "Rules": rules }));
        let token = json!({ "Policies": [{ "Name": POLICY }] });
        let token = self.call(root, "PUT", "acl/token", &token);
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// Changes the rules of the policy that [`Consul::create_token`] created.
    pub(crate) fn change_policy(&self, root: &str, rules: &str) {
        let policies = self.call(root, "GET", "acl/policies", &Value::Null);
        let policy = policies.as_array().unwrap().iter().find(|policy| policy["Name"] == POLICY);
        let path = format!("acl/policy/{}", policy.unwrap()["ID"].as_str().unwrap());
        self.call(root, "PUT", &path, &json!({ "Name": POLICY, "Rules": rules }));
    }

    /// The reply to a request to the API.
    fn call(&self, token: &str, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "{method} /v1/{path} HTTP/1.0\r\nX-Consul-Token: {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect((self.ip.as_str(), 8500)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {reply}"))
    }

    /// Kills the server. Its keys are lost.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Restarts it empty, at its old address.
    pub(crate) fn restart_empty(&mut self) {
        self.process = spawn(&self.ip, &self.dir, &self.config);
        self.wait_until_it_serves(None);
    }

    /// The settings of `-dev`, but with the addresses that `launch` gives.
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

    /// A leader alone is not enough: sessions can be created only once the server is in its
    /// catalogue.
    fn wait_until_it_serves(&self, token: Option<&str>) {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = self.store_with_token("start", token);
        runtime.block_on(async {
            loop {
                match store.grant_lease("start", Duration::from_secs(10)).await {
                    Ok(lease) => return store.revoke_lease(&lease).await.unwrap(),
                    Err(error) => self.check_timeout(started, &error.to_string()),
                }
            }
        });
    }

    fn check_timeout(&self, started: Instant, problem: &str) {
        if started.elapsed() > START_TIMEOUT {
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
