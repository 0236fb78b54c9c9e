//! `weftctl ipam`.

mod show;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use weft_cluster::networks;
use weft_datapath::netlink::Netlink;
use weft_inspect::{Checked, Fixing, Force, Life, Released};
use weft_inspect::{Difference, check, release};
use weft_ledger::Holder;
use weft_model::{NetworkName, NodeName};
use weft_wiring::Host;

use crate::arguments::IpamCommand;
use crate::{Session, output};

pub(crate) async fn run(
    session: &Session,
    command: IpamCommand,
) -> anyhow::Result<(String, ExitCode)> {
    let text = match command {
        IpamCommand::Show { network } => show::run(session, network).await?,
        IpamCommand::Check { network, fix } => {
            let fixing = if fix { Fixing::Yes } else { Fixing::No };
            return check(session, network, fixing).await;
        }
        IpamCommand::Release { address, network, force } => {
            let force = if force { Force::Yes } else { Force::No };
            release(session, address, &network, force).await?
        }
    };
    Ok((text, ExitCode::SUCCESS))
}

fn host(session: &Session) -> anyhow::Result<Host> {
    let netlink = Netlink::open().context("open a netlink socket")?;
    Ok(Host::new(session.config.clone(), session.cluster.clone(), netlink))
}

/// A difference as printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(flatten)]
    difference: &'a Difference,
    state: State,
}

/// The fate of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Fixed,
    Left,
    Note,
}

async fn check(
    session: &Session,
    network: Option<NetworkName>,
    fixing: Fixing,
) -> anyhow::Result<(String, ExitCode)> {
    let data_dir = &session.config.data_dir;
    let names: BTreeSet<NetworkName> = match network {
        Some(name) => {
            if networks::cached(data_dir, &name)?.is_none() {
                crate::network::find(session, &name).await?;
            }
            BTreeSet::from([name])
        }
        None => {
            let stored = crate::network::all(session).await?;
            let here = networks::all_cached(data_dir)?;
            stored.iter().chain(&here).map(|network| network.name().clone()).collect()
        }
    };
    let host = host(session)?;
    let mut checked = Checked::default();
    for name in &names {
        let of_one = check::check(&host, name, fixing).await?;
        checked.fixed.extend(of_one.fixed);
        checked.left.extend(of_one.left);
        checked.failures.extend(of_one.failures.iter().map(|f| format!("network {name}: {f}")));
    }
    for failure in &checked.failures {
        eprintln!("weftctl: {failure}");
    }
    let fixed = checked.fixed.iter().map(|difference| Row { difference, state: State::Fixed });
    let left = checked.left.iter().map(|difference| {
        let state = if difference.is_note { State::Note } else { State::Left };
        Row { difference, state }
    });
    let rows: Vec<Row<'_>> = fixed.chain(left).collect();
    let faulty = rows.iter().any(|row| row.state == State::Left);
    let code = if faulty { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let text = match session.output {
        output::Format::Json => output::json(&rows)?,
        output::Format::Table => lines(&rows, names.len()),
    };
    Ok((text, code))
}

fn lines(rows: &[Row<'_>], networks: usize) -> String {
    let mut text = String::new();
    let mut left = 0;
    for Row { difference: Difference { network, what, remedy, .. }, state } in rows {
        let _ = match state {
            State::Fixed => writeln!(text, "network {network}: fixed: {what}"),
            State::Left => writeln!(text, "network {network}: {what}: {remedy}"),
            State::Note => writeln!(text, "network {network}: note: {what}: {remedy}"),
        };
        left += usize::from(*state == State::Left);
    }
    let networks = output::count(networks, "network");
    match left {
        0 => text + &format!("{networks} checked: no difference\n"),
        _ => text + &format!("{networks} checked: {}\n", output::count(left, "difference")),
    }
}

/// An address that was released, as printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Release {
    address: IpAddr,
    network: NetworkName,
    holder: String,
    /// The holder's use of the address, in words.
    #[serde(skip)]
    use_until_now: String,
    alive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lender: Option<NodeName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

async fn release(
    session: &Session,
    address: IpAddr,
    network: &NetworkName,
    force: Force,
) -> anyhow::Result<String> {
    if networks::cached(&session.config.data_dir, network)?.is_none() {
        crate::network::find(session, network).await?;
    }
    let released = release::release_address(&host(session)?, network, address, force).await?;
    let row = |Released { holder, life, lender, kept }: Released| Release {
        address,
        network: network.clone(),
        holder: holder.to_string(),
        use_until_now: match &holder {
            Holder::Kept { sticky, .. } => format!("kept for {}", sticky.identity),
            holder => format!("held by {holder}"),
        },
        alive: match life {
            Life::Alive | Life::Unwired | Life::Deserted => Some(true),
            Life::Gone => Some(false),
            Life::Unknown => None,
        },
        lender,
        kept: kept.map(|kept| kept.to_string()),
    };
    let rows: Vec<Release> = released.into_iter().map(row).collect();
    if session.output == output::Format::Json {
        return output::json(&rows);
    }
    let mut text = String::new();
    for Release { holder, use_until_now, alive, lender, kept, .. } in &rows {
        let _ = match kept {
            None => {
                writeln!(
                    text,
                    "address {address} of network {network} is free; it was {use_until_now}"
                )
            }
            Some(kept) => writeln!(
                text,
                "address {address} of network {network} was held by {holder}, and is now held by \
                 {kept}; run this again to free it for everybody"
            ),
        };
        if *alive != Some(false) {
            let _ = writeln!(
                text,
                "{holder} must not go on using it: another container can get it at any moment"
            );
        }
        if let Some(lender) = lender {
            let _ = writeln!(text, "it was borrowed: weftd gives it back to node {lender}");
        }
    }
    Ok(text)
}
