//! `weftctl block`.

use serde::Serialize;
use weft_allocator::moving;
use weft_model::{Block, Network, NetworkName, NodeName};

use crate::arguments::BlockCommand;
use crate::{Session, output};

/// A block as listed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) network: NetworkName,
    pub(crate) block: Block,
    pub(crate) node: NodeName,
    /// The first and last address of each family.
    pub(crate) ranges: Vec<String>,
}

pub(crate) async fn run(session: &Session, command: BlockCommand) -> anyhow::Result<String> {
    match command {
        BlockCommand::List { network } => list(session, network).await,
        BlockCommand::Move { block, network, to } => move_to(session, block, network, to).await,
    }
}

async fn list(session: &Session, network: Option<NetworkName>) -> anyhow::Result<String> {
    let networks = match network {
        None => crate::network::all(session).await?,
        Some(name) => vec![crate::network::find(session, &name).await?],
    };
    let mut rows = vec![];
    for network in &networks {
        rows.extend(of(session, network).await?);
    }
    output::list(session.output, &rows, ["NETWORK", "BLOCK", "NODE", "ADDRESSES"], |row| {
        let ranges = row.ranges.join(", ");
        [row.network.to_string(), row.block.to_string(), row.node.to_string(), ranges]
    })
}

/// The blocks of `network`, in order.
pub(crate) async fn of(session: &Session, network: &Network) -> anyhow::Result<Vec<Row>> {
    let blocks = session.cluster.blocks(&network.id()).await?;
    let row = |(block, node): (Block, NodeName)| {
        let ends = [block.first(), block.last()].map(|host| network.addresses(block.pool(), host));
        let ranges = match ends {
            [Some(first), Some(last)] => {
                first.iter().zip(last.iter()).map(|(a, b)| format!("{a} - {b}")).collect()
            }
            _ => vec![],
        };
        Row { network: network.name().clone(), block, node, ranges }
    };
    Ok(blocks.into_iter().map(row).collect())
}

/// A block that another node owns now.
#[derive(Debug, Serialize)]
struct Move {
    network: NetworkName,
    block: Block,
    from: NodeName,
    to: NodeName,
}

async fn move_to(
    session: &Session,
    block: Block,
    network: NetworkName,
    to: NodeName,
) -> anyhow::Result<String> {
    let definition = crate::network::find(session, &network).await?;
    let from = moving::request(&session.cluster, &definition, &block, &to).await?;
    match session.output {
        output::Format::Json => output::json(&Move { network, block, from, to }),
        output::Format::Table => Ok(format!(
            "block {block} of network {network} belongs to node {to} now, and no longer to {from}\n"
        )),
    }
}
