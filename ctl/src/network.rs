//! `weftctl network`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, bail};
use serde::Serialize;
use weft_cluster::ClusterError;
use weft_cluster::catalogue::Catalogue;
use weft_datapath::netlink::Netlink;
use weft_inspect::usage::{self, NetworkUsage, Reports};
use weft_ledger::{Holder, Ledger, Reservation};
use weft_model::network::{Masquerade, Mode, NetworkRecord, Route};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Network, NetworkId, NetworkName, NetworkSpec, NodeName, Subnet, Vni};
use weft_wiring::Host;

use crate::arguments::{CreateNetwork, ExtendNetwork, NetworkCommand, Pools, Switch};
use crate::{Session, block, output};

pub(crate) async fn run(session: &Session, command: NetworkCommand) -> anyhow::Result<String> {
    match command {
        NetworkCommand::Create(create) => self::create(session, create).await,
        NetworkCommand::Extend(extend) => self::extend(session, &extend).await,
        NetworkCommand::List => list(session).await,
        NetworkCommand::Inspect { name } => inspect(session, &name).await,
        NetworkCommand::Remove { name, force } => {
            let how = if force { Removal::Forced } else { Removal::IfUnused };
            remove(session, &name, how).await
        }
    }
}

/// All networks whose records can be read. What the others are is told on standard error.
pub(crate) async fn all(session: &Session) -> anyhow::Result<Vec<Network>> {
    let Catalogue { networks, unreadable } = session.cluster.catalogue().await?;
    for (name, fault) in unreadable {
        eprintln!("weftctl: network {name} is left out: {fault}");
    }
    Ok(networks)
}

/// The network called `name`.
pub(crate) async fn find(session: &Session, name: &NetworkName) -> anyhow::Result<Network> {
    match session.cluster.network(name).await? {
        Some((network, _)) => Ok(network),
        None => bail!(
            "there is no network {name} in the {}; `weftctl network list` shows those there are",
            session.cluster.store().describe()
        ),
    }
}

async fn create(session: &Session, create: CreateNetwork) -> anyhow::Result<String> {
    let name = create.name.clone();
    let network = session.cluster.create_network(&name, &spec(&create)?).await?;
    match session.output {
        output::Format::Json => output::json(&network),
        output::Format::Table => Ok(format!("network {name} has vni {}\n", network.vni())),
    }
}

async fn extend(session: &Session, extend: &ExtendNetwork) -> anyhow::Result<String> {
    let name = &extend.name;
    let network = session.cluster.extend_network(name, &pools(&extend.pools)?).await?;
    match session.output {
        output::Format::Json => output::json(&network),
        output::Format::Table => {
            let subnets: Vec<String> = network.subnets().map(|s| s.to_string()).collect();
            Ok(format!("network {name} has subnets {}\n", subnets.join(", ")))
        }
    }
}

fn spec(create: &CreateNetwork) -> anyhow::Result<NetworkSpec> {
    let mode = if create.internal { Mode::Internal } else { Mode::Gateway };
    let masquerade = match (create.ip_masq, mode) {
        (Some(Switch::On), Mode::Internal) => {
            bail!("an internal network has nothing to masquerade")
        }
        (Some(Switch::On), _) | (None, Mode::Gateway) => Masquerade::On,
        (Some(Switch::Off), _) | (None, Mode::Internal) => Masquerade::Off,
    };
    let pools = pools(&create.pools)?;
    let families = [("0.0.0.0/0", true), ("::/0", false)];
    let routes = families
        .into_iter()
        .filter(|(_, v4)| {
            mode == Mode::Gateway
                && create.pools.subnet.iter().any(|subnet| subnet.is_ipv4() == *v4)
        })
        .map(|(dst, _)| Ok(Route { dst: dst.parse()?, gw: None }))
        .collect::<anyhow::Result<_>>()?;
    Ok(NetworkSpec {
        vni: create.vni.map(Vni::new).transpose()?,
        mode: Some(mode),
        masquerade: Some(masquerade),
        mtu: create.mtu,
        pools,
        routes,
    })
}

/// Pairs the subnets up: the first IPv4 one with the first IPv6 one, and so on.
fn pools(asked: &Pools) -> anyhow::Result<Vec<PoolRecord>> {
    let family = |subnet: Subnet| {
        let inside = |address: &IpAddr| subnet.contains(*address);
        FamilyRecord {
            subnet,
            gateway: asked.gateway.iter().copied().find(inside),
            range_start: asked.range_start.filter(inside),
            range_end: asked.range_end.filter(inside),
        }
    };
    let of_family = |v4: bool| {
        asked.subnet.iter().filter(move |s| s.is_ipv4() == v4).map(|s| family(*s)).collect()
    };
    let (v4, v6): (Vec<FamilyRecord>, Vec<FamilyRecord>) = (of_family(true), of_family(false));
    if !v4.is_empty() && !v6.is_empty() && v4.len() != v6.len() {
        bail!("{} IPv4 and {} IPv6 subnets do not pair up", v4.len(), v6.len());
    }
    let outside = |address: &IpAddr| !asked.subnet.iter().any(|s| s.contains(*address));
    let named = asked.gateway.iter().chain(&asked.range_start).chain(&asked.range_end);
    if let Some(stray) = named.copied().find(|address| outside(address)) {
        bail!("{stray} lies outside of every subnet");
    }
    let mut pools: Vec<PoolRecord> = (0..v4.len().max(v6.len()))
        .map(|i| PoolRecord {
            ipv4: v4.get(i).cloned(),
            ipv6: v6.get(i).cloned(),
            exclude: vec![],
            block_bits: asked.block_bits,
        })
        .collect();
    for net in &asked.exclude {
        let holds =
            |f: &Option<FamilyRecord>| f.as_ref().is_some_and(|f| f.subnet.contains(net.network()));
        match pools.iter_mut().find(|pool| holds(&pool.ipv4) || holds(&pool.ipv6)) {
            Some(pool) => pool.exclude.push(*net),
            None => bail!("--exclude {net} lies outside of every subnet"),
        }
    }
    Ok(pools)
}

/// A network as listed.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Readable(Box<Network>),
    /// One whose record cannot be read.
    Unreadable {
        name: NetworkName,
        unreadable: String,
    },
}

async fn list(session: &Session) -> anyhow::Result<String> {
    let Catalogue { networks, unreadable } = session.cluster.catalogue().await?;
    let readable = networks.into_iter().map(|network| Row::Readable(Box::new(network)));
    let unreadable = unreadable
        .into_iter()
        .map(|(name, fault)| Row::Unreadable { name, unreadable: fault.to_string() });
    let rows: Vec<Row> = readable.chain(unreadable).collect();
    output::note_if_none(session, &rows, "networks");
    output::list(
        session.output,
        &rows,
        ["NETWORK", "VNI", "SUBNETS", "MODE", "MASQUERADE", "MTU"],
        |row| {
            let network = match row {
                Row::Readable(network) => network,
                Row::Unreadable { name, unreadable } => {
                    let unknown = || "?".to_owned();
                    let (name, subnets) = (name.to_string(), format!("unreadable: {unreadable}"));
                    return [name, unknown(), subnets, unknown(), unknown(), unknown()];
                }
            };
            let record = network.record();
            let subnets: Vec<String> = network.subnets().map(|s| s.to_string()).collect();
            [
                record.name.to_string(),
                record.vni.to_string(),
                subnets.join(", "),
                words(record.mode).to_owned(),
                if record.masquerade == Masquerade::On { "on" } else { "off" }.to_owned(),
                record.mtu.map_or_else(|| "auto".to_owned(), |mtu| mtu.to_string()),
            ]
        },
    )
}

fn words(mode: Mode) -> &'static str {
    match mode {
        Mode::Gateway => "gateway",
        Mode::Internal => "internal",
    }
}

/// Everything about a network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    #[serde(flatten)]
    network: NetworkRecord,
    blocks: Vec<block::Row>,
    /// Counts of its addresses in use.
    usage: NetworkUsage,
    /// The addresses that this node's containers hold.
    reservations: Vec<Reservation>,
}

async fn inspect(session: &Session, name: &NetworkName) -> anyhow::Result<String> {
    let network = find(session, name).await?;
    let blocks = block::of(session, &network).await?;
    let reservations = reservations(session, &network)?;
    let reports = Reports::read(&session.cluster).await?;
    let data_dir = &session.config.data_dir;
    let usage = usage::read(&session.cluster, data_dir, &network, &reports).await?;
    output::json(&Inspection { network: network.into(), blocks, usage, reservations })
}

/// The addresses that this node's containers hold; none if it never had the network.
fn reservations(session: &Session, network: &Network) -> anyhow::Result<Vec<Reservation>> {
    let data_dir = &session.config.data_dir;
    if weft_cluster::networks::cached(data_dir, network.name())?.is_none() {
        return Ok(vec![]);
    }
    Ok(Ledger::open(data_dir, network.clone())?.reservations()?)
}

/// Choice to remove at once, or only if unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    IfUnused,
    Forced,
}

async fn remove(session: &Session, name: &NetworkName, how: Removal) -> anyhow::Result<String> {
    let netlink = Netlink::open().context("open a netlink socket")?;
    let host = Host::new(session.config.clone(), session.cluster.clone(), netlink);
    let network = match session.cluster.catalogue().await?.unreadable.remove(name) {
        None => find(session, name).await?,
        Some(_) if how == Removal::Forced => return remove_unreadable(session, &host, name).await,
        Some(fault) => bail!(
            "{fault}; nobody can tell where network {name} is in use; write the record again, or \
             remove the network with --force"
        ),
    };
    if how == Removal::IfUnused {
        check_unused(session, &host, &network).await?;
    }
    session.cluster.remove_network(&network).await?;
    let mut here = String::new();
    if host.remove_if_unused(&network).await? {
        session.cluster.leave_network(&network.id()).await?;
    } else {
        let containers =
            output::count(containers_here(session, &host, &network).await?, "container");
        let bridge = weft_model::device::bridge(network.vni());
        here = format!(
            "still on this host: {containers} and {bridge}; stop the containers, and weftd takes \
             the rest away\n"
        );
    }
    Ok(removed(session, name, &[network.id()]).await? + &here)
}

/// Count of this host's containers in the network.
async fn containers_here(
    session: &Session,
    host: &Host,
    network: &Network,
) -> anyhow::Result<usize> {
    let held = reservations(session, network)?;
    let held = held.iter().filter(|r| matches!(r.holder, Holder::Attachment { .. })).count();
    // Those whose addresses another IPAM plugin gave have no reservation.
    Ok(held.max(host.ports(network).await?.len()))
}

/// Removes a network whose record cannot be read.
async fn remove_unreadable(
    session: &Session,
    host: &Host,
    name: &NetworkName,
) -> anyhow::Result<String> {
    let Some(ids) = session.cluster.remove_unreadable(name).await? else {
        bail!("the record of network {name} can be read again; try again");
    };
    // This node knows the network by its cache.
    if let Some(network) = weft_cluster::networks::cached(&session.config.data_dir, name)?
        && ids.contains(&network.id())
        && host.remove_if_unused(&network).await?
    {
        session.cluster.leave_network(&network.id()).await?;
    }
    removed(session, name, &ids.into_iter().collect::<Vec<_>>()).await
}

/// The end of a removal, in words.
async fn removed(
    session: &Session,
    name: &NetworkName,
    ids: &[NetworkId],
) -> anyhow::Result<String> {
    let mut left = BTreeSet::new();
    for id in ids {
        left.extend(session.cluster.owners(id).await?.into_keys().map(|node| node.to_string()));
    }
    if left.is_empty() {
        return Ok(format!("network {name} is removed\n"));
    }
    let nodes: Vec<String> = left.into_iter().collect();
    Ok(format!(
        "network {name} is removed; its addresses stay those of node {} until weftd there has left \
         the network\n",
        nodes.join(", ")
    ))
}

/// Refuses while somebody may have a container in the network. Who holds what on another node only
/// that node knows, so a block of another node's is reason enough.
async fn check_unused(session: &Session, host: &Host, network: &Network) -> anyhow::Result<()> {
    let here = containers_here(session, host, network).await?;
    let mut users = vec![];
    if here > 0 {
        users.push(format!("{} on this node", output::count(here, "container")));
    }
    for (owner, blocks) in session.cluster.owners(&network.id()).await? {
        if &owner != session.cluster.node() {
            users.push(format!("node {owner} owns {}", output::count(blocks, "block")));
        }
    }
    // A node that borrows all its addresses owns no block.
    let mut borrowed: BTreeMap<NodeName, usize> = BTreeMap::new();
    for stored in session.cluster.endpoints(&network.id()).await?.into_values() {
        *borrowed.entry(stored.record.node).or_default() += 1;
    }
    for (node, addresses) in borrowed {
        if &node != session.cluster.node() {
            users.push(format!(
                "node {node} uses {} of others",
                output::count(addresses, "address")
            ));
        }
    }
    if users.is_empty() {
        return Ok(());
    }
    let users = users.join(", ");
    Err(ClusterError::InUse { network: network.name().clone(), users }.into())
}
