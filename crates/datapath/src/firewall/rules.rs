//! The commands that set and remove the rules of a network.

use std::collections::{HashMap, HashSet};

use nftables::expr::{
    Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Verdict,
};
use nftables::schema::{
    Chain, Element, FlushObject, NfCmd, NfListObject, Rule, Set, SetType, SetTypeValue, Table,
};
use nftables::stmt::{JumpTarget, Match, NAT, NATFlag, Operator, Statement, VerdictMap};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde::Serialize;
use serde_json::{Value, json};
use weft_model::network::{Masquerade, Mode};
use weft_model::{Network, Subnet, device};

use super::TABLE;

/// Priorities of the kernel's own names: `srcnat` and `filter` (`linux/netfilter_ipv4.h`).
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;

const FAMILY: NfFamily = NfFamily::INet;

/// A list of commands for `nft --json`, which is one transaction.
#[derive(Debug, Default, Serialize)]
pub(super) struct Transaction {
    #[serde(rename = "nftables")]
    commands: Vec<Command>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Command {
    Typed(NfCmd<'static>),
    /// The declaration of a verdict map: `nftables::schema::SetType` has no `verdict`.
    VerdictMap(Value),
}

impl Transaction {
    fn add(&mut self, object: NfListObject<'static>) {
        self.commands.push(Command::Typed(NfCmd::Add(object)));
    }

    fn delete(&mut self, object: NfListObject<'static>) {
        self.commands.push(Command::Typed(NfCmd::Delete(object)));
    }

    fn flush(&mut self, chain: Chain<'static>) {
        self.commands.push(Command::Typed(NfCmd::Flush(FlushObject::Chain(chain))));
    }

    /// Adds a map from the names of interfaces to verdicts.
    fn add_verdict_map(&mut self, name: &str) {
        let map = json!({
            "family": FAMILY, "table": TABLE, "name": name, "type": "ifname", "map": "verdict",
        });
        self.commands.push(Command::VerdictMap(json!({"add": {"map": map}})));
    }

    /// The number of rules that each chain gets, of the chains that get some.
    pub(super) fn rules(&self) -> HashMap<&str, usize> {
        let mut rules = HashMap::new();
        for command in &self.commands {
            if let Command::Typed(NfCmd::Add(NfListObject::Rule(rule))) = command {
                *rules.entry(&*rule.chain).or_default() += 1;
            }
        }
        rules
    }

    /// The sets and maps that are changed, and true for those that have an element more in the end.
    pub(super) fn sets(&self) -> HashMap<&str, bool> {
        let changed = self.commands.iter().filter_map(|command| match command {
            Command::Typed(NfCmd::Add(NfListObject::Element(element))) => {
                Some((&*element.name, true))
            }
            Command::Typed(NfCmd::Delete(NfListObject::Element(element))) => {
                Some((&*element.name, false))
            }
            _ => None,
        });
        changed.collect()
    }
}

/// The transaction that sets the rules of `network`.
pub(super) fn to_set(network: &Network) -> Transaction {
    let bridge = device::bridge(network.vni());
    let mut all = Transaction::default();
    all.add(table());
    all.add(set("bridges"));
    all.add(set("internal"));
    all.add_verdict_map("masquerade");
    all.add_verdict_map("isolate");
    let chains = [
        ("postrouting", NfChainType::NAT, NfHook::Postrouting, PRIORITY_SRCNAT),
        ("forward", NfChainType::Filter, NfHook::Forward, PRIORITY_FILTER),
        ("input", NfChainType::Filter, NfHook::Input, PRIORITY_FILTER),
    ];
    for (name, kind, hook, priority) in chains {
        all.add(NfListObject::Chain(Chain {
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..chain(name)
        }));
    }
    for (name, ..) in chains {
        all.flush(chain(name));
    }
    all.add(rule("postrouting", vec![lookup("masquerade")]));
    all.add(rule("forward", vec![lookup("isolate")]));
    all.add(rule("forward", vec![within(MetaKey::Oifname, "internal"), drop()]));
    all.add(rule("input", vec![within(MetaKey::Iifname, "internal"), drop()]));
    all.add(element("bridges", name_of(&bridge)));
    all.add(element("internal", name_of(&bridge)));
    // A network of the same VNI may have been internal before.
    if network.mode() == Mode::Gateway {
        all.delete(element("internal", name_of(&bridge)));
    }
    for (map, rules) in [
        ("masquerade", masquerade_rules(network, &bridge)),
        ("isolate", vec![isolate_rule(network, &bridge)]),
    ] {
        let name = format!("{map}-{bridge}");
        all.add(NfListObject::Chain(chain(&name)));
        all.flush(chain(&name));
        for statements in rules {
            all.add(rule(&name, statements));
        }
        all.add(element(map, goto(&bridge, &name)));
    }
    all
}

/// The transaction that removes the rules of `network`.
pub(super) fn to_remove(network: &Network) -> Transaction {
    let bridge = device::bridge(network.vni());
    // Nothing can be deleted that does not exist, so all of it is created first.
    let mut all = to_set(network);
    for map in ["masquerade", "isolate"] {
        let name = format!("{map}-{bridge}");
        all.delete(element(map, goto(&bridge, &name)));
        all.delete(NfListObject::Chain(chain(&name)));
    }
    all.delete(element("bridges", name_of(&bridge)));
    if network.mode() == Mode::Internal {
        all.delete(element("internal", name_of(&bridge)));
    }
    all
}

/// One rule for each subnet: packets from a container to an address outside take the node's
/// address.
fn masquerade_rules(network: &Network, bridge: &str) -> Vec<Vec<Statement<'static>>> {
    let record = network.record();
    if record.masquerade == Masquerade::Off || record.mode == Mode::Internal {
        return vec![];
    }
    let rule = |subnet: Subnet| {
        let (protocol, multicast) =
            if subnet.is_ipv4() { ("ip", ("224.0.0.0", 4)) } else { ("ip6", ("ff00::", 8)) };
        let inside = prefix(&subnet.network().to_string(), subnet.prefix_len());
        // Ports in sequence collide when two packets of one socket race (kernel's nf_nat).
        let flags = Some(HashSet::from([NATFlag::FullyRandom]));
        vec![
            compare(Operator::EQ, field(protocol, "saddr"), inside.clone()),
            compare(Operator::NEQ, field(protocol, "daddr"), inside),
            compare(Operator::NEQ, field(protocol, "daddr"), prefix(multicast.0, multicast.1)),
            leaves_other_than(bridge),
            Statement::Masquerade(Some(NAT { addr: None, family: None, port: None, flags })),
        ]
    };
    network.subnets().map(rule).collect()
}

fn isolate_rule(network: &Network, bridge: &str) -> Vec<Statement<'static>> {
    let mut statements = vec![leaves_other_than(bridge)];
    if network.mode() == Mode::Gateway {
        statements.push(within(MetaKey::Oifname, "bridges"));
    }
    statements.push(drop());
    statements
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table { family: FAMILY, name: TABLE.into(), handle: None })
}

fn set(name: &'static str) -> NfListObject<'static> {
    let set_type = SetTypeValue::Single(SetType::Ifname);
    let (family, table, name) = (FAMILY, TABLE.into(), name.into());
    NfListObject::Set(Box::new(Set { family, table, name, set_type, ..Set::default() }))
}

fn chain(name: &str) -> Chain<'static> {
    let (family, table, name) = (FAMILY, TABLE.into(), name.to_owned().into());
    Chain { family, table, name, ..Chain::default() }
}

fn rule(chain: &str, statements: Vec<Statement<'static>>) -> NfListObject<'static> {
    let (family, table, chain) = (FAMILY, TABLE.into(), chain.to_owned().into());
    NfListObject::Rule(Rule { family, table, chain, expr: statements.into(), ..Rule::default() })
}

fn element(set: &'static str, value: Expression<'static>) -> NfListObject<'static> {
    let (family, table, name) = (FAMILY, TABLE.into(), set.into());
    NfListObject::Element(Element { family, table, name, elem: vec![value].into() })
}

fn name_of(interface: &str) -> Expression<'static> {
    Expression::String(interface.to_owned().into())
}

/// The element of a verdict map that leads packets of `bridge` to `chain`.
fn goto(bridge: &str, chain: &str) -> Expression<'static> {
    let target = chain.to_owned().into();
    let verdict = Expression::Verdict(Verdict::Goto(JumpTarget { target }));
    Expression::List(vec![name_of(bridge), verdict])
}

fn lookup(map: &str) -> Statement<'static> {
    Statement::VerdictMap(VerdictMap { key: meta(MetaKey::Iifname), data: reference(map) })
}

fn within(key: MetaKey, set: &str) -> Statement<'static> {
    compare(Operator::EQ, meta(key), reference(set))
}

fn leaves_other_than(bridge: &str) -> Statement<'static> {
    compare(Operator::NEQ, meta(MetaKey::Oifname), name_of(bridge))
}

fn drop() -> Statement<'static> {
    Statement::Drop(None)
}

fn reference(set: &str) -> Expression<'static> {
    Expression::String(format!("@{set}").into())
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let (protocol, field) = (protocol.into(), field.into());
    let field = Payload::PayloadField(PayloadField { protocol, field });
    Expression::Named(NamedExpression::Payload(field))
}

fn prefix(address: &str, length: u8) -> Expression<'static> {
    let addr = Box::new(Expression::String(address.to_owned().into()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: length.into() }))
}

fn compare(
    op: Operator,
    left: Expression<'static>,
    right: Expression<'static>,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}
