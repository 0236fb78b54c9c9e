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
    /// Always there in the output; the record has it only if it is true.
    drained: bool,
}

pub(crate) async fn run(session: &Session, command: NodeCommand) -> anyhow::Result<String> {
    match command {
        NodeCommand::List => list(session).await,
        NodeCommand::Drain { name } => drain(session, name, true).await,
        NodeCommand::Undrain { name } => drain(session, name, false).await,
        NodeCommand::Remove { name } => remove(session, name).await,
    }
}

async fn list(session: &Session) -> anyhow::Result<String> {
    let members = session.cluster.members().await?;
    let rows: Vec<Row> = members
        .into_iter()
        .map(|(name, member)| {
            let drained = member.record.drained;
            let record = NodeRecord { drained: false, ..member.record };
            Row { name, record, alive: member.alive, drained }
        })
        .collect();
    let titles = ["NODE", "VTEP", "PORT", "AGENT", "STATE", "VERSION"];
    output::note_if_none(session, &rows, "nodes");
    output::list(session.output, &rows, titles, |row| {
        let vteps: Vec<String> = row.record.vteps.iter().map(ToString::to_string).collect();
        let agent = if row.alive {
            "alive"
        } else if session.cluster.is_single_node() {
            // One host alone needs no agent.
            "–"
        } else {
            "down"
        };
        let state = match (row.record.removing, row.drained) {
            (true, _) => "removing",
            (false, true) => "drained",
            (false, false) => "in use",
        };
        [
            row.name.to_string(),
            vteps.join(", "),
            row.record.port.to_string(),
            agent.to_owned(),
            state.to_owned(),
            row.record.version.clone(),
        ]
    })
}

/// A node that was drained, or is in use again.
#[derive(Debug, Serialize)]
struct Drain {
    node: NodeName,
    drained: bool,
    /// True if it was not so before.
    changed: bool,
    /// Number of blocks that it owns now.
    blocks: usize,
}

async fn drain(session: &Session, node: NodeName, drained: bool) -> anyhow::Result<String> {
    let changed = session.cluster.set_drained(&node, drained).await?;
    let mut blocks = 0;
    for network in crate::network::all(session).await? {
        blocks += session.cluster.owners(&network.id()).await?.get(&node).copied().unwrap_or(0);
    }
    let alive = session.cluster.is_alive(&node).await?;
    if session.output == output::Format::Json {
        return output::json(&Drain { node, drained, changed, blocks });
    }
    let again = if changed { "" } else { " already" };
    if !drained {
        let was = if changed { "again" } else { "already" };
        return Ok(format!("node {node} claims blocks {was}; it owns {blocks}\n"));
    }
    let blocks = output::count(blocks, "block");
    let rest = if alive {
        "weftd there gives each back as soon as no container needs it"
    } else {
        "weftd does not run there, so they stay until it does, or until `weftctl node remove`"
    };
    Ok(format!(
        "node {node} is{again} drained and gets no new blocks; it owns {blocks}: {rest}; \
         `weftctl node undrain {node}` undoes this\n"
    ))
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
