//! Firewall rules: masquerade for what leaves a network, and none of it into another. Nothing leaves
//! an internal network, and nothing comes into it: no gateway does not mean no way out, since the host
//! routes whatever is sent to the bridge's MAC.
//!
//! One table, `inet weft`, filled once for each network and never for a container. Each network has
//! two chains, reached by a verdict map from the name of its bridge, so that a packet meets the rules
//! of one network however many there are:
//!
//! ```text
//! table inet weft {
//!   set bridges            { type ifname; elements = { wb10000, wb10001, ... } }
//!   set internal           { type ifname; elements = { wb10001, ... } }
//!   map masquerade         { type ifname : verdict; elements = { wb10000 : goto masquerade-wb10000, ... } }
//!   map isolate            { type ifname : verdict; elements = { wb10000 : goto isolate-wb10000, ... } }
//!   chain postrouting      { type nat hook postrouting priority srcnat; iifname vmap @masquerade }
//!   chain forward          { type filter hook forward priority filter; iifname vmap @isolate
//!                            oifname @internal drop }
//!   chain input            { type filter hook input priority filter; iifname @internal drop }
//!   chain masquerade-wb10000 { ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16 ip daddr != 224.0.0.0/4
//!                              oifname != "wb10000" masquerade fully-random }
//!   chain isolate-wb10000    { oifname != "wb10000" oifname @bridges drop }
//!   chain isolate-wb10001    { oifname != "wb10001" drop }
//! }
//! ```
//!
//! Everything is one transaction, and the same one each time: what is there is emptied and filled
//! again, so it may be run at any moment, by several processes at once.
//!
//! Each function runs `nft`, waits for at most ten seconds, and has an asynchronous form for processes
//! that serve others: it waits on one of tokio's threads for blocking work.

mod nft;

use serde_json::{Value, json};
use weft_model::network::{Masquerade, Mode};
use weft_model::{Network, NetworkName, Subnet, device};

use self::nft::Running;
use crate::DatapathError;

/// The program that sets and lists rules, found by `PATH`.
const NFT: &str = "nft";

const FAMILY: &str = "inet";
const TABLE: &str = "weft";

/// Priorities of the kernel's own names: `srcnat` and `filter` (`linux/netfilter_ipv4.h`).
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;

/// Makes sure that the rules of `network` are set. Runs `nft` and waits for it.
///
/// # Errors
///
/// [`DatapathError::Firewall`] if `nft` cannot be run, refuses, or does not answer within ten seconds.
pub fn ensure(network: &Network) -> Result<(), DatapathError> {
    begin(network)?.wait()
}

/// Starts to set the rules of `network` and returns at once, so that the caller can do other work
/// while `nft` runs. `nft` works on the network namespace of the calling thread.
///
/// # Errors
///
/// [`DatapathError::Firewall`] if `nft` cannot be run. Everything else is for [`Pending::wait`] to tell.
pub fn begin(network: &Network) -> Result<Pending, DatapathError> {
    start("set", network, &transaction(network))
}

/// Rules on their way into the kernel. Dropped without [`Pending::wait`], `nft` is killed and collected,
/// and the rules may be set or not.
#[derive(Debug)]
#[must_use = "the rules are set for certain only after `wait`"]
pub struct Pending {
    action: &'static str,
    network: NetworkName,
    running: Running,
}

impl Pending {
    /// Waits until the rules are set.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Firewall`] if `nft` refuses, or has not answered within ten seconds of its
    /// start.
    pub fn wait(self) -> Result<(), DatapathError> {
        let Self { action, network, running } = self;
        let failed = |problem| failure(action, &network, problem);
        match running.wait().map_err(failed)? {
            output if output.success => Ok(()),
            output => Err(failed(output.stderr)),
        }
    }
}

/// [`ensure`] off the calling thread.
pub async fn ensure_async(network: &Network) -> Result<(), DatapathError> {
    off_thread("set", network, ensure).await
}

/// Returns whether the rules of `network` are set, as far as counting them tells. Runs `nft` and waits
/// for it.
///
/// # Errors
///
/// As of [`ensure`], but for a refusal: without the table there are no rules.
pub fn is_present(network: &Network) -> Result<bool, DatapathError> {
    let failed = |problem: String| failure("read", network.name(), problem);
    let arguments = ["--json", "list", "table", FAMILY, TABLE];
    let output = nft::run(NFT, &arguments, &[], nft::TIMEOUT).map_err(failed)?;
    if !output.success {
        return Ok(false);
    }
    let listed: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let listed = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bridge = device::bridge(network.vni());
    let holds = |name: &Value| {
        let elements = listed.iter().flat_map(|object| [&object["set"], &object["map"]]);
        let elements = elements.filter(|set| set["name"] == *name);
        let mut elements = elements.filter_map(|set| set["elem"].as_array()).flatten();
        elements.any(|element| *element == *bridge || element[0] == *bridge)
    };
    let rules = |objects: &mut dyn Iterator<Item = &Value>, chain: &Value| {
        objects.filter(|object| object["rule"]["chain"] == *chain).count()
    };
    let commands = transaction(network);
    let added = || commands.iter().map(|command| &command["add"]);
    let deleted =
        |name: &Value| commands.iter().any(|command| command["delete"]["element"]["name"] == *name);
    Ok(added().all(|object| {
        let (element, chain) = (&object["element"]["name"], &object["rule"]["chain"]);
        (element.is_null() || holds(element) != deleted(element))
            && (chain.is_null() || rules(&mut listed.iter(), chain) == rules(&mut added(), chain))
    }))
}

/// [`is_present`] off the calling thread.
pub async fn is_present_async(network: &Network) -> Result<bool, DatapathError> {
    off_thread("read", network, is_present).await
}

/// Makes sure that there are no rules of `network`. Runs `nft` and waits for it.
///
/// # Errors
///
/// As of [`ensure`].
pub fn remove(network: &Network) -> Result<(), DatapathError> {
    let bridge = device::bridge(network.vni());
    // What does not exist cannot be deleted, so all of it is created first.
    let mut commands = transaction(network);
    for map in ["masquerade", "isolate"] {
        let chain = format!("{map}-{bridge}");
        let element = json!([[bridge, {"goto": {"target": chain}}]]);
        commands.push(json!({"delete": {"element": named(map, json!({"elem": element}))}}));
        commands.push(json!({"delete": {"chain": named(&chain, json!({}))}}));
    }
    let mut sets = vec!["bridges"];
    if network.mode() == Mode::Internal {
        sets.push("internal");
    }
    for set in sets {
        let element = json!({"elem": [bridge]});
        commands.push(json!({"delete": {"element": named(set, element)}}));
    }
    start("remove", network, &commands)?.wait()
}

/// [`remove`] off the calling thread.
pub async fn remove_async(network: &Network) -> Result<(), DatapathError> {
    off_thread("remove", network, remove).await
}

/// Does `work` on one of tokio's threads for blocking work.
async fn off_thread<T: Send + 'static>(
    action: &'static str,
    network: &Network,
    work: impl FnOnce(&Network) -> Result<T, DatapathError> + Send + 'static,
) -> Result<T, DatapathError> {
    let copy = network.clone();
    let done = tokio::task::spawn_blocking(move || work(&copy)).await;
    done.unwrap_or_else(|error| {
        Err(failure(action, network.name(), format!("it ended early: {error}")))
    })
}

/// Starts `nft` with `commands`.
fn start(
    action: &'static str,
    network: &Network,
    commands: &[Value],
) -> Result<Pending, DatapathError> {
    let payload = json!({"nftables": commands}).to_string();
    let arguments = ["--json", "--file", "-"];
    let running = Running::start(NFT, &arguments, payload.as_bytes(), nft::TIMEOUT)
        .map_err(|problem| failure(action, network.name(), problem))?;
    Ok(Pending { action, network: network.name().clone(), running })
}

fn failure(action: &'static str, network: &NetworkName, problem: String) -> DatapathError {
    DatapathError::Firewall { action, network: network.to_string(), problem }
}

fn transaction(network: &Network) -> Vec<Value> {
    let bridge = device::bridge(network.vni());
    let verdicts = json!({"type": "ifname", "map": "verdict"});
    let mut commands = vec![
        json!({"add": {"table": {"family": FAMILY, "name": TABLE}}}),
        json!({"add": {"set": named("bridges", json!({"type": "ifname"}))}}),
        json!({"add": {"set": named("internal", json!({"type": "ifname"}))}}),
        json!({"add": {"map": named("masquerade", verdicts.clone())}}),
        json!({"add": {"map": named("isolate", verdicts)}}),
        base_chain("postrouting", "nat", PRIORITY_SRCNAT),
        base_chain("forward", "filter", PRIORITY_FILTER),
        base_chain("input", "filter", PRIORITY_FILTER),
        flush("postrouting"),
        flush("forward"),
        flush("input"),
        rule("postrouting", &json!([lookup("masquerade")])),
        rule("forward", &json!([lookup("isolate")])),
        rule("forward", &json!([within("oifname", "internal"), {"drop": null}])),
        rule("input", &json!([within("iifname", "internal"), {"drop": null}])),
        json!({"add": {"element": named("bridges", json!({"elem": [bridge]}))}}),
        json!({"add": {"element": named("internal", json!({"elem": [bridge]}))}}),
    ];
    // A network of the same VNI may have been internal before.
    if network.mode() == Mode::Gateway {
        let element = json!({"elem": [bridge]});
        commands.push(json!({"delete": {"element": named("internal", element)}}));
    }
    for (map, rules) in [
        ("masquerade", masquerade_rules(network, &bridge)),
        ("isolate", vec![isolate_rule(network, &bridge)]),
    ] {
        let chain = format!("{map}-{bridge}");
        commands.push(json!({"add": {"chain": named(&chain, json!({}))}}));
        commands.push(flush(&chain));
        commands.extend(rules.iter().map(|expression| rule(&chain, expression)));
        let element = json!([[bridge, {"goto": {"target": chain}}]]);
        commands.push(json!({"add": {"element": named(map, json!({"elem": element}))}}));
    }
    commands
}

/// One rule for each subnet: what a container sends to somewhere else takes the node's address.
fn masquerade_rules(network: &Network, bridge: &str) -> Vec<Value> {
    let record = network.record();
    if record.masquerade == Masquerade::Off || record.mode == Mode::Internal {
        return vec![];
    }
    let rule = |subnet: Subnet| {
        let (protocol, multicast) =
            if subnet.is_ipv4() { ("ip", ("224.0.0.0", 4)) } else { ("ip6", ("ff00::", 8)) };
        let inside = prefix(&subnet.network().to_string(), subnet.prefix_len());
        json!([
            compare("==", &field(protocol, "saddr"), &inside),
            compare("!=", &field(protocol, "daddr"), &inside),
            compare("!=", &field(protocol, "daddr"), &prefix(multicast.0, multicast.1)),
            compare("!=", &meta("oifname"), &json!(bridge)),
            // Ports in sequence collide when two packets of one socket race (kernel's nf_nat).
            {"masquerade": {"flags": "fully-random"}},
        ])
    };
    network.subnets().map(rule).collect()
}

fn isolate_rule(network: &Network, bridge: &str) -> Value {
    let mut rule = vec![compare("!=", &meta("oifname"), &json!(bridge))];
    if network.mode() == Mode::Gateway {
        rule.push(within("oifname", "bridges"));
    }
    rule.push(json!({"drop": null}));
    json!(rule)
}

/// An object of the table, by name.
fn named(name: &str, mut more: Value) -> Value {
    more["family"] = FAMILY.into();
    more["table"] = TABLE.into();
    more["name"] = name.into();
    more
}

fn base_chain(name: &str, kind: &str, priority: i32) -> Value {
    let hook = json!({"type": kind, "hook": name, "prio": priority, "policy": "accept"});
    json!({"add": {"chain": named(name, hook)}})
}

fn flush(chain: &str) -> Value {
    json!({"flush": {"chain": named(chain, json!({}))}})
}

fn rule(chain: &str, expression: &Value) -> Value {
    json!({"add": {"rule": {"family": FAMILY, "table": TABLE, "chain": chain, "expr": expression}}})
}

fn lookup(map: &str) -> Value {
    json!({"vmap": {"key": meta("iifname"), "data": format!("@{map}")}})
}

fn within(key: &str, set: &str) -> Value {
    compare("==", &meta(key), &json!(format!("@{set}")))
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn prefix(address: &str, length: u8) -> Value {
    json!({"prefix": {"addr": address, "len": length}})
}

fn compare(operator: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": operator, "left": left, "right": right}})
}
