//! The remote addresses that the kernel must know, as a pure function of what the store and the
//! node's own files hold.
//!
//! A block says it all: its owner is a node, and the node has a VTEP. Endpoints, the exceptions,
//! are laid over the blocks. Nothing here depends on which containers run, so starting one changes
//! nothing on any other node; and nothing here enumerates the addresses of a block.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use weft_cluster::{Members, NetworkView};
use weft_datapath::peers::{self, PeerTable};
use weft_files::FileError;
use weft_ledger::Ledger;
use weft_ledger::layout::NetworkDir;
use weft_model::{Block, Network, NodeName};

/// Blocks and addresses that live on this host by the node's own files. They are right about that
/// whatever the cluster store lists: a host that sent these addresses elsewhere would cut off
/// containers that run. Addresses that the node knows to have lost are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// The node's blocks.
    pub blocks: BTreeSet<Block>,
    /// Addresses in own blocks that are held here although the store has an endpoint for them.
    pub held: BTreeSet<IpAddr>,
    /// Addresses of other nodes' blocks that are borrowed.
    pub borrowed: BTreeSet<IpAddr>,
}

impl Here {
    /// The state of the files under `data_dir` for `network`, as far as it matters for `view`.
    pub fn of(data_dir: &Path, network: &Network, view: &NetworkView) -> Result<Self, FileError> {
        if !NetworkDir::new(data_dir, network.name()).root().exists() {
            return Ok(Self::default());
        }
        let ledger = Ledger::open(data_dir, network.clone())?;
        let blocks: BTreeSet<Block> = ledger.blocks()?.into_iter().collect();
        let is_own = |address: &IpAddr| {
            network.block_of(*address).is_some_and(|block| blocks.contains(&block))
        };
        let exceptions: Vec<IpAddr> = view.endpoints.keys().copied().filter(is_own).collect();
        let held = if exceptions.is_empty() {
            BTreeSet::new()
        } else {
            let places = exceptions.iter().filter_map(|address| network.locate(*address));
            let held = ledger.held_among(places)?;
            let is_held =
                |a: &IpAddr| network.locate(*a).is_some_and(|place| held.contains(&place));
            exceptions.into_iter().filter(is_held).collect()
        };
        let borrowed = ledger.all_borrowed()?.into_iter().flat_map(|held| held.addresses).collect();
        Ok(Self { blocks, held, borrowed })
    }
}

/// A block or an address that belongs to another node according to the store, and to this one
/// according to its own files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contested {
    /// The block or address.
    pub what: String,
    /// The other node.
    pub node: NodeName,
}

/// The blocks and addresses of `network` that live on other nodes than `own`, as far as those have
/// a VTEP of the family of `local`, this node's own; and what the store gives to other nodes though
/// it is `here`.
pub fn peer_table(
    view: &NetworkView,
    members: &Members,
    network: &Network,
    own: &NodeName,
    local: IpAddr,
    here: &Here,
) -> (PeerTable, BTreeSet<Contested>) {
    let vtep = |node: &NodeName| members.get(node)?.record.vtep_for(local);
    let mut table = PeerTable::default();
    let mut contested = BTreeSet::new();
    for (block, owner) in view.blocks.iter().filter(|(_, owner)| *owner != own) {
        if here.blocks.contains(block) {
            let what = format!("block {block}");
            contested.insert(Contested { what, node: owner.clone() });
        } else if let Some(vtep) = vtep(owner) {
            table.blocks.insert(*block, vtep);
        }
    }
    for (address, stored) in &view.endpoints {
        let endpoint = &stored.record;
        let exception = match vtep(&endpoint.node) {
            _ if endpoint.node == *own => peers::Endpoint::Here,
            _ if here.held.contains(address) || here.borrowed.contains(address) => {
                let (what, node) = (format!("address {address}"), endpoint.node.clone());
                contested.insert(Contested { what, node });
                peers::Endpoint::Here
            }
            Some(vtep) => peers::Endpoint::At { mac: endpoint.mac, vtep },
            None => peers::Endpoint::Unreachable,
        };
        table.endpoints.insert(*address, exception);
    }
    for address in here.borrowed.iter().filter(|a| !view.endpoints.contains_key(a)) {
        let owner = network.block_of(*address).and_then(|block| view.blocks.get(&block));
        if let Some(node) = owner.filter(|owner| *owner != own) {
            let what = format!("address {address}");
            contested.insert(Contested { what, node: node.clone() });
            table.endpoints.insert(*address, peers::Endpoint::Here);
        }
    }
    (table, contested)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_cluster::{Member, Stored};
    use weft_model::pool::{FamilyRecord, PoolRecord};
    use weft_model::{Endpoint, NetworkName, NetworkSpec, NodeRecord, Vni};
    use weft_store::Revision;

    fn network() -> Network {
        let ipv4 = FamilyRecord::new("10.9.0.0/28".parse().unwrap());
        let ipv6 = FamilyRecord::new("fd00:9::/64".parse().unwrap());
        let pool = PoolRecord {
            ipv4: Some(ipv4),
            ipv6: Some(ipv6),
            block_bits: Some(2),
            ..PoolRecord::default()
        };
        NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
            .unwrap()
    }

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn member(vteps: &[&str]) -> Member {
        let vteps = vteps.iter().map(|vtep| ip(vtep)).collect();
        let record = NodeRecord {
            machine_id: "m".into(),
            vteps,
            port: 4789,
            removing: false,
            drained: false,
            version: String::new(),
        };
        Member { record, alive: true }
    }

    fn members() -> Members {
        Members::from([
            (name("own"), member(&["198.18.0.1"])),
            (name("peer"), member(&["198.18.0.2"])),
            (name("ipv6-only"), member(&["fd00::3"])),
        ])
    }

    fn view() -> NetworkView {
        let owner = |block: &str, node: &str| (block.parse().unwrap(), name(node));
        NetworkView {
            blocks: [
                owner("0-0-2", "own"),
                owner("0-4-2", "peer"),
                owner("0-8-2", "ipv6-only"),
                owner("0-12-2", "unknown"),
            ]
            .into(),
            ..NetworkView::default()
        }
    }

    fn lend(view: &mut NetworkView, address: &str, node: &str) {
        let mac = "02:00:00:00:00:01".parse().unwrap();
        let record = Endpoint { node: name(node), mac, lender: None, loan: None };
        view.endpoints.insert(ip(address), Stored { record, revision: Revision::new(1) });
    }

    fn table(view: &NetworkView, here: &Here) -> (PeerTable, Vec<String>) {
        let local = ip("198.18.0.1");
        let (table, contested) =
            peer_table(view, &members(), &network(), &name("own"), local, here);
        (table, contested.iter().map(|c| format!("{} {}", c.what, c.node)).collect())
    }

    fn own_blocks() -> Here {
        Here { blocks: ["0-0-2".parse().unwrap()].into(), ..Here::default() }
    }

    #[test]
    fn programs_blocks_of_reachable_peers() {
        let (table, contested) = table(&view(), &own_blocks());
        assert_eq!(table.blocks, [("0-4-2".parse().unwrap(), ip("198.18.0.2"))].into());
        assert!(table.endpoints.is_empty() && contested.is_empty());
    }

    #[test]
    fn endpoints_override_blocks() {
        let mut view = view();
        lend(&mut view, "10.9.0.2", "peer");
        lend(&mut view, "10.9.0.5", "own");
        lend(&mut view, "10.9.0.6", "unknown");
        let (table, contested) = table(&view, &own_blocks());
        let (mac, vtep) = ("02:00:00:00:00:01".parse().unwrap(), ip("198.18.0.2"));
        assert_eq!(table.endpoints[&ip("10.9.0.2")], peers::Endpoint::At { mac, vtep });
        assert_eq!(table.endpoints[&ip("10.9.0.5")], peers::Endpoint::Here);
        assert_eq!(table.endpoints[&ip("10.9.0.6")], peers::Endpoint::Unreachable);
        assert!(contested.is_empty());
    }

    #[test]
    fn never_sends_elsewhere_what_lives_here() {
        let mut view = view();
        lend(&mut view, "10.9.0.2", "peer");
        let here = Here {
            held: [ip("10.9.0.2")].into(),
            borrowed: [ip("10.9.0.5"), ip("fd00:9::5")].into(),
            ..own_blocks()
        };
        let (table_, contested) = table(&view, &here);
        assert!(table_.endpoints.values().all(|e| *e == peers::Endpoint::Here));
        assert_eq!(table_.endpoints.len(), 3);
        assert_eq!(
            contested,
            ["address 10.9.0.2 peer", "address 10.9.0.5 peer", "address fd00:9::5 peer"]
        );
        view.blocks.insert("0-0-2".parse().unwrap(), name("peer"));
        let (table, contested) = table(&view, &here);
        assert!(!table.blocks.contains_key(&"0-0-2".parse().unwrap()));
        assert!(contested.contains(&"block 0-0-2 peer".to_owned()));
    }
}
