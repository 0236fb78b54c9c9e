//! Faults: programs that are killed, machines that reboot, nodes that are cut off or removed.

use anyhow::Result;
use weft_model::NodeName;
use weft_store::keys;

use crate::run::Simulation;
use crate::world::TaskId;

impl Simulation {
    /// Something goes wrong.
    pub(crate) fn trouble(&mut self) -> Result<()> {
        let number = usize::try_from(self.chance(self.nodes.len() as u64))?;
        match self.chance(12) {
            0..3 => self.kill(number),
            3..5 => self.reboot(number),
            5..9 => {
                let node = &mut self.nodes[number];
                node.connected = !node.connected;
                let connected = node.connected;
                self.report.cuts += u64::from(!connected);
                self.tell(|| format!("node-{number} is connected: {connected}"));
            }
            9 => self.expire(number),
            _ => return self.remove(number),
        }
        Ok(())
    }

    /// Kills one program of a node, agent or plugin.
    pub(crate) fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let ids: Vec<TaskId> = node.tasks.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.world.lock().random.usize(..ids.len())];
        node.tasks.remove(&id);
        let agent = node.agent == Some(id);
        if agent {
            node.agent = None;
        }
        self.report.crashes += 1;
        self.tell(|| format!("node-{number} program {id} killed, agent: {agent}"));
    }

    /// Stops a machine, or starts it again with nothing in `/run`.
    pub(crate) fn reboot(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.up {
            node.up = true;
            return;
        }
        node.tasks.clear();
        node.agent = None;
        node.containers.clear();
        node.up = false;
        let _ = std::fs::remove_dir_all(&node.data_dir);
        self.oracle.drop_node(number);
        self.report.crashes += 1;
        self.tell(|| format!("node-{number} goes down"));
    }

    /// The lease of an agent that does not renew it ends.
    pub(crate) fn expire(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.up && node.connected && node.agent.is_some() {
            return;
        }
        let key = keys::alive(node.cluster.node());
        let mut shared = self.world.lock();
        if let Some(lease) = shared.server.lease(&key) {
            shared.server.end_lease(&lease);
        }
    }

    /// An administrator on another node declares a node gone that shows no life.
    pub(crate) fn remove(&mut self, number: usize) -> Result<()> {
        let admin = usize::try_from(self.chance(self.nodes.len() as u64))?;
        self.expire(number);
        let node = &self.nodes[number];
        let name: NodeName = node.cluster.node().clone();
        let alive = self.world.lock().server.lease(&keys::alive(&name)).is_some();
        if admin == number || alive || (node.up && node.connected) || !self.nodes[admin].connected {
            return Ok(());
        }
        if !self.nodes[admin].up {
            return Ok(());
        }
        self.oracle.drop_node(number);
        self.tell(|| format!("node-{admin} removes node-{number}"));
        let node = &mut self.nodes[number];
        node.exiled = node.progress.lock().ok().map(|progress| progress.holds);
        let task = self.nodes[admin].remove(name);
        self.start(admin, task).map(drop)
    }
}
