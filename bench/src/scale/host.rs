//! Hosts on one underlay: a bridge of this namespace, at which Consul listens, and a namespace for
//! each host.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use weft_model::{Network, device};

use super::agent::Agent;
use crate::plugin::Plugin;
use crate::sandbox::Sandbox;
use crate::shell::{Daemon, run, run_all};

/// Address of Consul.
pub(crate) const CONSUL_IP: &str = "198.18.0.1";

/// URL of Consul.
pub(crate) const CONSUL: &str = "http://198.18.0.1:8500";

/// Makes the underlay, once.
pub(crate) fn make_underlay() -> Result<()> {
    run_all(&format!(
        "ip link set lo up
         ip link add name under type bridge mcast_snooping 0
         ip address add {CONSUL_IP}/15 dev under
         ip link set under up"
    ))
}

/// A host of its own network namespace with a cable to the underlay.
pub(crate) struct Host {
    /// The namespace.
    pub sandbox: Sandbox,
    /// Interface at the other end of the cable, in this namespace.
    cable: String,
    /// Node configurations, and the agent's log.
    folder: PathBuf,
    /// The start of its containers' names.
    containers: String,
}

impl Host {
    /// Makes the host with this number. Its node is called after it.
    pub(crate) fn create(number: u16) -> Result<Self> {
        let name = format!("host-{number}");
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 1, 0)) + u32::from(number));
        let sandbox = Sandbox::create(&name)?;
        let cable = format!("cable{number}");
        run_all(&format!(
            "ip link add name {cable} type veth peer name eth0 netns {name}
             ip link set {cable} master under up
             ip -n {name} link set lo up
             ip -n {name} address add {address}/15 dev eth0
             ip -n {name} link set eth0 up"
        ))?;
        let folder = PathBuf::from("/run").join(&name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self { sandbox, cable, folder, containers: format!("container-{number}") })
    }

    /// Attaches a container to a network that is in the store, by a real ADD.
    pub(crate) fn attach(&self, weft: &Path, network: &Network) -> Result<Sandbox> {
        let container = Sandbox::create(&format!("{}-{}", self.containers, network.name()))?;
        let plugin = Plugin {
            name: "weft",
            folder: weft.into(),
            conf: json!({
                "cniVersion": "1.0.0", "name": network.name(), "type": "weft",
                "ipam": {"type": "weft-ipam"},
            }),
            host: Some(self.sandbox.name.clone()),
            node_config: Some(self.configure("plugin", CONSUL)?),
        };
        plugin.call("ADD", &container)?;
        Ok(container)
    }

    /// Starts the agent with the Consul at the URL `consul`.
    pub(crate) fn start_agent(&self, weft: &Path, consul: &str) -> Result<Agent> {
        let config = self.configure("agent", consul)?;
        let log = self.folder.join("weftd.log");
        let name = &self.sandbox.name;
        let line =
            format!("ip netns exec {name} {}/weftd --config {}", weft.display(), config.display());
        Ok(Agent::new(Daemon::start_with_log(&line, &log)?, name, &self.cable, log))
    }

    /// Writes a node configuration and returns where it is.
    fn configure(&self, who: &str, consul: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{who}.toml"));
        let (name, data_dir) = (&self.sandbox.name, self.folder.join("data"));
        std::fs::write(
            &path,
            format!(
                "node = \"{name}\"\nunderlay = \"eth0\"\ndata_dir = \"{}\"\n\
                 [store]\ntype = \"consul\"\naddress = \"{consul}\"\n",
                data_dir.display()
            ),
        )?;
        Ok(path)
    }

    /// Entries that the kernel has for remote addresses of the network: neighbours of the bridge,
    /// FDB entries of the bridge for the VXLAN device, and FDB entries of the VXLAN device.
    pub(crate) fn entries(&self, network: &Network) -> Result<[usize; 3]> {
        let name = &self.sandbox.name;
        let (bridge, vxlan) = (device::bridge(network.vni()), device::vxlan(network.vni()));
        let neighbours = run(&format!("ip -n {name} -4 neigh show dev {bridge} nud permanent"))?;
        let fdb = run(&format!("ip netns exec {name} bridge fdb show dev {vxlan}"))
            .with_context(|| format!("host {name} has no {vxlan}"))?;
        // The FDB of a port also has the port's own MAC, which is permanent in the bridge's.
        let count = |what: &[&str]| {
            fdb.lines().filter(|line| what.iter().all(|word| line.contains(word))).count()
        };
        Ok([neighbours.lines().count(), count(&["master", "static"]), count(&[" dst ", "self"])])
    }
}
