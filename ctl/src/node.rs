//! `weftctl node`.

use serde::Serialize;
use weft_cluster::ClusterError;
use weft_cluster::agent;
use weft_model::{NodeName, NodeRecord};

use crate::arguments::NodeCommand;
use crate::{Session, output};

/// A node as listed.
#[derive(Debug, Serialize)]
struct Row {
    name: NodeName,
    #[serde(flatten)]
    record: NodeRecord,
    alive: bool,
}

pub(crate) async fn run(session: &Session, command: NodeCommand) -> anyhow::Result<String> {
    match command {
        NodeCommand::List => list(session).await,
        NodeCommand::Remove { name } => remove(session, name).await,
    }
}

async fn list(session: &Session) -> anyhow::Result<String> {
    let members = session.cluster.members().await?;
    let rows: Vec<Row> = members
        .into_iter()
        .map(|(name, member)| Row { name, record: member.record, alive: member.alive })
        .collect();
    output::note_if_none(session, &rows, "nodes");
    output::list(session.output, &rows, ["NODE", "VTEP", "PORT", "AGENT", "VERSION"], |row| {
        let vteps: Vec<String> = row.record.vteps.iter().map(ToString::to_string).collect();
        let agent = if row.alive {
            "alive"
        } else if session.cluster.is_single_node() {
            // One host alone needs no agent.
            "–"
        } else {
            "down"
        };
        [
            row.name.to_string(),
            vteps.join(", "),
            row.record.port.to_string(),
            agent.to_owned(),
            row.record.version.clone(),
        ]
    })
}

/// The blocks and addresses that the cluster has back.
#[derive(Debug, Serialize)]
struct Removal {
    node: NodeName,
    blocks: usize,
    endpoints: usize,
}

async fn remove(session: &Session, node: NodeName) -> anyhow::Result<String> {
    // An agent that the store has lost sight of would take all of it again.
    if node == *session.cluster.node() && agent::is_running(&session.config.data_dir) {
        return Err(ClusterError::NodeAlive { node }.into());
    }
    let removed = session.cluster.remove_node(&node).await?;
    let removal = Removal { node, blocks: removed.blocks, endpoints: removed.endpoints };
    match session.output {
        output::Format::Json => output::json(&removal),
        output::Format::Table => Ok(format!(
            "node {} is removed; {} and {} came back\n",
            removal.node,
            output::count(removal.blocks, "block"),
            output::count(removal.endpoints, "borrowed address")
        )),
    }
}
