//! Which remote addresses the kernel must know, as a pure function of what the store holds.
//!
//! A block says it all: its owner is a node, the node has a VTEP, and every address in the block has
//! the MAC that follows from it. Endpoints, the exceptions, are laid over the blocks. Nothing here
//! depends on which containers run, so starting one changes nothing on any other node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use weft_allocator::AllocatorError;
use weft_cluster::cluster::KnownNode;
use weft_ledger::Ledger;
use weft_ledger::layout::NetworkDir;
use weft_model::{Block, Endpoint, MacAddr, Network, NodeName};

/// What the cluster store says about one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Its blocks and their owners.
    pub blocks: BTreeMap<Block, NodeName>,
    /// All nodes.
    pub nodes: BTreeMap<NodeName, KnownNode>,
    /// Its endpoints by address.
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
}

/// An address on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Remote {
    /// The address.
    pub address: IpAddr,
    /// The MAC that answers for it.
    pub mac: MacAddr,
    /// Where to send its frames.
    pub vtep: IpAddr,
}

/// What lives on this host by the node's own files. They are right about that whatever the cluster
/// store says: who sends these addresses elsewhere cuts off containers that run. What the node knows
/// to be lost is not among it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// The node's blocks.
    pub blocks: BTreeSet<Block>,
    /// The addresses that the node and its containers hold, in these blocks and others.
    pub addresses: BTreeSet<IpAddr>,
}

impl Here {
    /// What the files under `data_dir` say of `network`.
    pub fn of(data_dir: &Path, network: &Network) -> Result<Self, AllocatorError> {
        if !NetworkDir::new(data_dir, network.name()).root().exists() {
            return Ok(Self::default());
        }
        let ledger = Ledger::open(data_dir, network.clone())?;
        let mut held = ledger.reservations()?;
        let lost = ledger.stranded()?;
        held.retain(|r| r.holder.is_using());
        held.retain(|r| !lost.contains(r));
        Ok(Self {
            blocks: ledger.blocks()?.into_iter().collect(),
            addresses: held.into_iter().flat_map(|reservation| reservation.addresses).collect(),
        })
    }
}

/// What the cluster store says lives on another node, and the node's own files say lives here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contested {
    /// A block or an address.
    pub what: String,
    /// The other node.
    pub node: NodeName,
}

impl Roster {
    /// The addresses of `network` that live on other nodes than `own`, as far as those have a VTEP
    /// of the family of `local`, this node's own; and what the roster gives to other nodes though it
    /// is `here`.
    pub fn remotes(
        &self,
        network: &Network,
        own: &NodeName,
        local: IpAddr,
        here: &Here,
    ) -> (Vec<Remote>, BTreeSet<Contested>) {
        let vteps: BTreeMap<&NodeName, IpAddr> = self
            .nodes
            .iter()
            .filter(|(name, _)| *name != own)
            .filter_map(|(name, node)| Some((name, node.record.vtep_for(local)?)))
            .collect();
        let mut remotes: BTreeMap<IpAddr, (Remote, &NodeName)> = BTreeMap::new();
        let mut contested = BTreeSet::new();
        for (block, owner) in &self.blocks {
            if owner != own && here.blocks.contains(block) {
                let what = format!("block {block}");
                contested.insert(Contested { what, node: owner.clone() });
                continue;
            }
            let Some(vtep) = vteps.get(owner) else { continue };
            for addresses in network.addresses_of(*block) {
                for address in addresses.iter() {
                    let remote = Remote { address, mac: addresses.mac, vtep: *vtep };
                    remotes.insert(address, (remote, owner));
                }
            }
        }
        for (address, endpoint) in &self.endpoints {
            match vteps.get(&endpoint.node) {
                Some(vtep) => {
                    let remote = Remote { address: *address, mac: endpoint.mac, vtep: *vtep };
                    remotes.insert(*address, (remote, &endpoint.node));
                }
                // It lives here, or nowhere that could be reached: not where its block is.
                None => {
                    remotes.remove(address);
                }
            }
        }
        for address in &here.addresses {
            if let Some((_, node)) = remotes.remove(address) {
                let what = format!("address {address}");
                contested.insert(Contested { what, node: node.clone() });
            }
        }
        (remotes.into_values().map(|(remote, _)| remote).collect(), contested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::pool::{FamilyRecord, PoolRecord};
    use weft_model::{NetworkName, NetworkSpec, NodeRecord, Vni};

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

    fn node(vteps: &[&str]) -> KnownNode {
        let vteps = vteps.iter().map(|vtep| vtep.parse().unwrap()).collect();
        let record = NodeRecord {
            machine_id: "m".into(),
            vteps,
            port: 4789,
            removing: false,
            version: String::new(),
        };
        KnownNode { record, alive: true }
    }

    fn roster() -> Roster {
        Roster {
            blocks: BTreeMap::from([
                ("0-0-2".parse().unwrap(), name("own")),
                ("0-4-2".parse().unwrap(), name("peer")),
                ("0-8-2".parse().unwrap(), name("ipv6-only")),
                ("0-12-2".parse().unwrap(), name("unknown")),
            ]),
            nodes: BTreeMap::from([
                (name("own"), node(&["198.18.0.1"])),
                (name("peer"), node(&["198.18.0.2"])),
                (name("ipv6-only"), node(&["fd00::3"])),
            ]),
            endpoints: BTreeMap::new(),
        }
    }

    fn divide(roster: &Roster, here: &Here) -> (Vec<String>, Vec<String>) {
        let local = "198.18.0.1".parse().unwrap();
        let (remotes, contested) = roster.remotes(&network(), &name("own"), local, here);
        let shown = |remote: &Remote| format!("{} {} {}", remote.address, remote.mac, remote.vtep);
        let contested = contested.iter().map(|c| format!("{} {}", c.what, c.node)).collect();
        (remotes.iter().map(shown).collect(), contested)
    }

    fn remotes(roster: &Roster) -> Vec<String> {
        divide(roster, &Here::default()).0
    }

    #[test]
    fn a_peers_block_is_all_its_addresses_in_both_families() {
        let all = remotes(&roster());
        assert_eq!(all.len(), 8);
        assert!(all.contains(&"10.9.0.5 02:42:0a:09:00:05 198.18.0.2".to_owned()));
        assert!(all.contains(&"fd00:9::5 02:42:0a:09:00:05 198.18.0.2".to_owned()));
    }

    #[test]
    fn endpoints_override_blocks() {
        let mut roster = roster();
        let endpoint = |node: &str| Endpoint {
            node: name(node),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            lender: None,
            loan: None,
        };
        roster.endpoints.insert("10.9.0.2".parse().unwrap(), endpoint("peer"));
        roster.endpoints.insert("10.9.0.5".parse().unwrap(), endpoint("own"));
        roster.endpoints.insert("10.9.0.6".parse().unwrap(), endpoint("peer"));
        let all = remotes(&roster);
        assert!(all.contains(&"10.9.0.2 02:00:00:00:00:01 198.18.0.2".to_owned()), "from my block");
        assert!(!all.iter().any(|remote| remote.starts_with("10.9.0.5 ")), "lent to this node");
        assert!(all.contains(&"10.9.0.6 02:00:00:00:00:01 198.18.0.2".to_owned()), "its own MAC");
    }
    #[test]
    fn what_lives_here_is_never_looked_for_elsewhere() {
        let mut roster = roster();
        let here = Here {
            blocks: BTreeSet::from(["0-0-2".parse().unwrap()]),
            addresses: BTreeSet::from([
                "10.9.0.2".parse().unwrap(),
                "10.9.0.5".parse().unwrap(),
                "fd00:9::5".parse().unwrap(),
            ]),
        };
        let (all, contested) = divide(&roster, &here);
        assert_eq!(all.len(), 6, "all of the peer's but the two that a container here holds");
        assert_eq!(contested, ["address 10.9.0.5 peer", "address fd00:9::5 peer"]);
        roster.blocks.insert("0-0-2".parse().unwrap(), name("peer"));
        let (all, contested) = divide(&roster, &here);
        assert_eq!(all.len(), 6);
        assert!(contested.contains(&"block 0-0-2 peer".to_owned()));
    }

    #[test]
    fn an_address_of_an_own_block_that_was_lent_is_looked_for_where_it_lives() {
        let mut roster = roster();
        let mac = "02:42:0a:09:00:02".parse().unwrap();
        let endpoint = Endpoint { node: name("peer"), mac, lender: Some(name("own")), loan: None };
        roster.endpoints.insert("10.9.0.2".parse().unwrap(), endpoint);
        let blocks = BTreeSet::from(["0-0-2".parse().unwrap()]);
        let (all, contested) = divide(&roster, &Here { blocks, ..Here::default() });
        assert!(all.contains(&"10.9.0.2 02:42:0a:09:00:02 198.18.0.2".to_owned()));
        assert!(contested.is_empty());
    }
}
