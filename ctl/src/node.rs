//! `weftctl node`.

use serde::Serialize;
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
    }
}

async fn list(session: &Session) -> anyhow::Result<String> {
    let nodes = session.cluster.nodes().await?;
    let rows: Vec<Row> = nodes
        .into_iter()
        .map(|(name, node)| Row { name, record: node.record, alive: node.alive })
        .collect();
    output::list(session.output, &rows, ["NODE", "VTEP", "PORT", "AGENT", "VERSION"], |row| {
        let vteps: Vec<String> = row.record.vteps.iter().map(ToString::to_string).collect();
        let agent = if row.alive { "alive" } else { "down" };
        [
            row.name.to_string(),
            vteps.join(", "),
            row.record.port.to_string(),
            agent.to_owned(),
            row.record.version.clone(),
        ]
    })
}
