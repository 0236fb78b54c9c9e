//! A Consul server of the benchmark's own, and weft's view of what is in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use weft_cluster::config::{ConsulConfig, StoreConfig, Underlay};
use weft_cluster::{Cluster, NodeConfig};
use weft_model::NodeName;

use crate::shell::{Daemon, run};
use crate::traffic::wait_until;

/// Starts a cluster of one server that listens at the address `ip`, and waits until it takes
/// writes. Its state is below `/run`.
///
/// Its limit of connections from one address is out of the way: what is measured is weft, not the
/// limit.
pub(crate) fn start(program: &Path, ip: &str) -> Result<Daemon> {
    const CONFIG: &str = "/run/weft-bench-consul.json";
    const LOG: &str = "/run/weft-bench-consul.log";
    let data_dir = "/run/weft-bench-consul";
    let _ = std::fs::remove_dir_all(data_dir);
    std::fs::write(CONFIG, r#"{"limits": {"http_max_conns_per_client": 10000}}"#)?;
    // Consul does not start where it may open fewer files than connections.
    let line = format!(
        "prlimit --nofile=16384 {} agent -server -bootstrap-expect=1 -bind={ip} -client={ip} \
         -node=bench -log-level=err -data-dir={data_dir} -config-file={CONFIG}",
        program.display()
    );
    let server = Daemon::start_with_log(&line, Path::new(LOG))?;
    // A leader alone is not enough: it must be in its own catalogue too, before it takes sessions.
    wait_until("Consul is ready", || {
        let health = run(&format!("curl -sf http://{ip}:8500/v1/health/node/bench"));
        Ok(health.is_ok_and(|health| health.contains("passing")))
    })
    .with_context(|| std::fs::read_to_string(LOG).unwrap_or_default())?;
    Ok(server)
}

/// The cluster as the node called `node` sees it in the Consul at the URL `address`.
pub(crate) fn connect(address: &str, prefix: &str, node: &str, data_dir: &Path) -> Result<Cluster> {
    let config = NodeConfig {
        path: data_dir.join("weft.toml"),
        node: NodeName::new(node)?,
        underlay: Underlay::DefaultRoute,
        port: weft_model::node::VXLAN_PORT,
        data_dir: data_dir.into(),
        store: StoreConfig::Consul(ConsulConfig {
            address: Some(address.into()),
            prefix: prefix.into(),
            ..ConsulConfig::default()
        }),
        release_after: Duration::from_secs(600),
        sweep_grace: Duration::from_secs(60),
    };
    Ok(Cluster::connect(&config, |_| None)?)
}
