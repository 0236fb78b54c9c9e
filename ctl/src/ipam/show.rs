//! `weftctl ipam show`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use weft_allocator::AllocatorError;
use weft_cluster::{ClusterError, networks};
use weft_inspect::usage::{self, NetworkUsage, NodeUsage, Parts, Report, Reports, Source};
use weft_model::NetworkName;

use crate::{Session, output};

/// A number that is not known.
const UNKNOWN: &str = "–";

pub(super) async fn run(session: &Session, network: Option<NetworkName>) -> anyhow::Result<String> {
    let all = match of_cluster(session, network.as_ref()).await {
        Ok(all) => all,
        Err(error) if is_away(&error) => {
            eprintln!(
                "weftctl: {error:#}; this shows what the files of this node, {}, tell",
                session.cluster.node()
            );
            of_files(session, network.as_ref())?
        }
        Err(error) => return Err(error),
    };
    match session.output {
        output::Format::Json => output::json(&all),
        output::Format::Table => {
            let texts: Vec<String> = all.iter().map(tables).collect();
            Ok(texts.join("\n"))
        }
    }
}

async fn of_cluster(
    session: &Session,
    network: Option<&NetworkName>,
) -> anyhow::Result<Vec<NetworkUsage>> {
    let networks = match network {
        None => crate::network::all(session).await?,
        Some(name) => vec![crate::network::find(session, name).await?],
    };
    let reports = Reports::read(&session.cluster).await?;
    let mut all = vec![];
    for network in &networks {
        let data_dir = &session.config.data_dir;
        all.push(usage::read(&session.cluster, data_dir, network, &reports).await?);
    }
    Ok(all)
}

/// Returns whether the cluster store cannot be reached at the moment.
fn is_away(error: &anyhow::Error) -> bool {
    let cluster = match error.downcast_ref::<AllocatorError>() {
        Some(AllocatorError::Cluster(error)) => Some(error),
        Some(_) => None,
        None => error.downcast_ref::<ClusterError>(),
    };
    matches!(cluster, Some(ClusterError::Store(error)) if error.is_retryable())
}

fn of_files(session: &Session, network: Option<&NetworkName>) -> anyhow::Result<Vec<NetworkUsage>> {
    let data_dir = &session.config.data_dir;
    let mut networks = networks::all_cached(data_dir)?;
    if let Some(name) = network {
        networks.retain(|network| network.name() == name);
        if networks.is_empty() {
            bail!("this node has no files of network {name}: ask again when the store is back");
        }
    }
    let usage = |network| usage::read_files(&session.cluster, data_dir, network);
    Ok(networks.iter().map(usage).collect::<Result<_, _>>()?)
}

/// A network's tables.
fn tables(usage: &NetworkUsage) -> String {
    let blocks = usage.blocks.len();
    let owned = match usage.source {
        Source::Cluster => format!("{blocks} of {} blocks have an owner", usage.blocks_total),
        Source::LocalFiles => {
            format!("{} of this node; the others are not known", output::count(blocks, "block"))
        }
    };
    let mut text = format!("NETWORK {}: {owned}\n\n", usage.network);
    let row = |what: String, subnets: String, addresses: u64, owned: Option<u64>| {
        let unowned = shown(owned.map(|owned| addresses.saturating_sub(owned)));
        let bar = owned.map_or_else(|| UNKNOWN.into(), |owned| output::bar(owned, addresses));
        [what, subnets, addresses.to_string(), shown(owned), unowned, bar]
    };
    let mut pools: Vec<[String; 6]> = usage
        .pools
        .iter()
        .map(|pool| {
            let subnets: Vec<String> = pool.subnets.iter().map(ToString::to_string).collect();
            row(format!("pool {}", pool.pool), subnets.join(", "), pool.addresses, pool.owned)
        })
        .collect();
    if pools.len() > 1 {
        pools.push(row("all".into(), String::new(), usage.addresses, usage.owned));
    }
    let titles = ["POOL", "SUBNETS", "ADDRESSES", "OWNED", "UNOWNED", "OWNED BY BLOCKS"];
    text += &output::table(titles, pools.into_iter());
    text.push('\n');
    let nodes = usage.nodes.iter().map(|node| {
        let [held, kept, lent, free, bar] = parts(node.parts, node.addresses);
        let (blocks, addresses) = (node.blocks.to_string(), node.addresses.to_string());
        let borrowed = node.borrowed.to_string();
        let name = node.node.to_string();
        [name, blocks, addresses, held, kept, lent, free, borrowed, reported(node), bar]
    });
    let titles = [
        "NODE",
        "BLOCKS",
        "ADDRESSES",
        "HELD",
        "KEPT",
        "LENT",
        "FREE",
        "BORROWED",
        "REPORTED",
        "IN USE",
    ];
    text += &output::table(titles, nodes);
    text.push('\n');
    let blocks = usage.blocks.iter().map(|block| {
        let [held, kept, lent, free, bar] = parts(block.parts, block.addresses);
        let (name, node) = (block.block.to_string(), block.node.to_string());
        [name, node, block.addresses.to_string(), held, kept, lent, free, bar]
    });
    let titles = ["BLOCK", "NODE", "ADDRESSES", "HELD", "KEPT", "LENT", "FREE", "IN USE"];
    text += &output::table(titles, blocks);
    text
}

fn parts(parts: Parts, addresses: u64) -> [String; 5] {
    let bar = parts.used().map_or_else(|| UNKNOWN.into(), |used| output::bar(used, addresses));
    [shown(parts.held), shown(parts.kept), parts.lent.to_string(), shown(parts.free), bar]
}

fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| UNKNOWN.into(), |number| number.to_string())
}

/// The origin of a node's numbers: the age of the report if it is out of date.
fn reported(node: &NodeUsage) -> String {
    match (node.report, node.reported) {
        (Report::Own, _) => "here".into(),
        (Report::Current, _) => "current".into(),
        (Report::Stale, Some(time)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{} ago", age(now.saturating_sub(Duration::from_secs(time))))
        }
        (Report::Stale | Report::Missing, _) => UNKNOWN.into(),
    }
}

/// A time in its largest unit.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    match units.into_iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shown_in_their_largest_unit() {
        for (seconds, expected) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7_199, "1 h"), (200_000, "2 d")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
