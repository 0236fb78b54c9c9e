//! The protocol by which a node comes to own a block: a pure state machine.
//!
//! It is told what the cluster store answered ([`Event`]) and says what to ask next ([`Action`]).
//! It knows no clock, no randomness and no I/O, so that the very code that runs in the plugin can
//! be driven through every order of events by a simulator.
//!
//! A node first adopts a block that the store says it owns and its ledger does not know: one left
//! from before a reboot, or claimed by a process that was killed before it could enter it. Adoption
//! is a write, so that a release of the block that is still on its way to the store fails. Only
//! when there is nothing to adopt, the node claims a free block. The lowest free block comes first,
//! which keeps addresses small and legible while a cluster grows node by node. The node that loses
//! the race for it takes one at a place of its own, so a thousand nodes that start at once settle
//! in about two rounds instead of a thousand.
//!
//! Safety does not rest on the list, which may be stale: a claim is the creation of a key that must
//! be absent.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::{Block, HostNumber, Network, NodeName, Pool, PoolIndex};

/// Rounds before a claim gives up. With a place of its own from the second round on, a node fails
/// twice in a row only where nearly everything is taken.
const ROUNDS: u32 = 16;

/// With how many blocks a node counts as being in a hurry.
const IN_A_HURRY: usize = 2;

/// The wanted block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Room for another address.
    AnyBlock,
    /// This block.
    Exactly(Block),
}

/// The next request to the cluster store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// List the network's blocks with their owners, at least the one that is the target, then
    /// report [`Event::Listed`].
    List,
    /// Create the block's key if it is absent, then report [`Event::Created`].
    Create(Block),
    /// Write the block's key again if it is as it was listed, then report [`Event::Adopted`].
    Adopt(Block),
    /// It is over.
    Done(Claimed),
}

/// The cluster store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The network's blocks and their owners.
    Listed(BTreeMap<Block, NodeName>),
    /// True if the key was absent and is this node's now.
    Created(bool),
    /// True if the key was as listed.
    Adopted(bool),
}

/// Outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The block is this node's: enter it into the ledger.
    Own(Block),
    /// Every block of the network has an owner.
    Exhausted {
        /// Count of the blocks that could hold a container.
        blocks: u64,
        /// Count of the nodes that share them.
        nodes: usize,
    },
    /// The wanted block is another node's.
    OwnedBy(NodeName),
    /// Others were faster in every round.
    Contended,
}

/// A claim under way.
#[derive(Debug)]
pub struct Claim<'a> {
    network: &'a Network,
    node: &'a NodeName,
    target: Target,
    known: BTreeSet<Block>,
    round: u32,
    asked: Option<Block>,
}

impl<'a> Claim<'a> {
    /// Begins a claim of `node`, whose ledger has the blocks `known`.
    pub fn new(
        network: &'a Network,
        node: &'a NodeName,
        target: Target,
        known: impl IntoIterator<Item = Block>,
    ) -> (Self, Action) {
        let known: BTreeSet<Block> = known.into_iter().collect();
        let mut claim = Self { network, node, target, known, round: 0, asked: None };
        let guess = claim.guess();
        claim.asked = guess;
        (claim, guess.map_or(Action::List, Action::Create))
    }

    /// A block to ask for without looking. A node that needs block after block is in a hurry, and
    /// where most blocks are free, which is nearly always, a list of all would tell it nothing.
    fn guess(&self) -> Option<Block> {
        if self.target != Target::AnyBlock || self.known.len() < IN_A_HURRY {
            return None;
        }
        let owners = self.known.iter().map(|block| (*block, self.node.clone())).collect();
        self.choose(&owners, self.known.len() as u64)
    }

    /// Takes an answer and says what to do next.
    pub fn next(&mut self, event: Event) -> Action {
        match event {
            Event::Listed(owners) => self.listed(&owners),
            Event::Created(true) | Event::Adopted(true) => match self.asked.take() {
                Some(block) => Action::Done(Claimed::Own(block)),
                None => Action::List,
            },
            Event::Created(false) | Event::Adopted(false) => {
                self.asked = None;
                self.round += 1;
                if self.round >= ROUNDS {
                    return Action::Done(Claimed::Contended);
                }
                Action::List
            }
        }
    }

    fn listed(&mut self, owners: &BTreeMap<Block, NodeName>) -> Action {
        let unknown = || {
            let mut own = owners.iter().filter(|(_, owner)| *owner == self.node);
            own.find(|(block, _)| !self.known.contains(block)).map(|(block, _)| *block)
        };
        let action = match self.target {
            Target::AnyBlock => unknown()
                .map(Action::Adopt)
                .or_else(|| self.choose(owners, u64::from(self.round)).map(Action::Create)),
            Target::Exactly(block) => match owners.get(&block) {
                Some(owner) if owner == self.node => Some(Action::Adopt(block)),
                Some(owner) => return Action::Done(Claimed::OwnedBy(owner.clone())),
                None => Some(Action::Create(block)),
            },
        };
        let Some(action) = action else { return Action::Done(self.exhausted(owners)) };
        if let Action::Adopt(block) | Action::Create(block) = action {
            self.asked = Some(block);
        }
        action
    }

    /// A block without an owner: the lowest for place 0, for others one at a place that differs
    /// from node to node.
    fn choose(&self, owners: &BTreeMap<Block, NodeName>, place: u64) -> Option<Block> {
        let seed = self.node.as_str().bytes().fold(place, |seed, byte| mix(seed ^ u64::from(byte)));
        self.network.pools().find_map(|(index, pool)| {
            let place = if place == 0 { 0 } else { seed % count(pool) };
            let start = pool.first().get() + (place << pool.block_bits().get());
            let end = HostNumber::new(start);
            unowned(owners, index, pool, end, pool.last())
                .or_else(|| unowned(owners, index, pool, pool.first(), end))
        })
    }

    fn exhausted(&self, owners: &BTreeMap<Block, NodeName>) -> Claimed {
        let nodes: BTreeSet<&NodeName> = owners.values().collect();
        Claimed::Exhausted { blocks: count_blocks(self.network), nodes: nodes.len() }
    }
}

/// The first block between the two host numbers that has no owner and something to hand out.
fn unowned(
    owners: &BTreeMap<Block, NodeName>,
    index: PoolIndex,
    pool: &Pool,
    from: HostNumber,
    to: HostNumber,
) -> Option<Block> {
    let mut host = pool.next_assignable(from)?;
    while host <= to {
        let block = Block::containing(index, host, pool.block_bits());
        if !owners.contains_key(&block) {
            return Some(block);
        }
        host = pool.next_assignable(HostNumber::new(block.last().get() + 1))?;
    }
    None
}

/// Count of the blocks that the pools of `network` are cut into.
pub fn count_blocks(network: &Network) -> u64 {
    network.pools().map(|(_, pool)| count(pool)).sum()
}

/// Count of the blocks that `pool` is cut into, within its range.
fn count(pool: &Pool) -> u64 {
    let bits = pool.block_bits().get();
    (pool.last().get() >> bits) - (pool.first().get() >> bits) + 1
}

/// The finalizer of `splitmix64`: every bit of the input moves about half of the output's.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::pool::{FamilyRecord, PoolRecord};
    use weft_model::{NetworkName, NetworkSpec, Vni};

    fn network(subnet: &str) -> Network {
        let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
        let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
        NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
            .unwrap()
    }

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// A cluster store in a map.
    #[derive(Default)]
    struct Store(BTreeMap<Block, NodeName>);

    impl Store {
        fn run(&mut self, mut claim: (Claim<'_>, Action), owner: &NodeName) -> Claimed {
            loop {
                let event = match claim.1 {
                    Action::List => Event::Listed(self.0.clone()),
                    Action::Create(block) => {
                        let absent = !self.0.contains_key(&block);
                        self.0.entry(block).or_insert_with(|| owner.clone());
                        Event::Created(absent)
                    }
                    Action::Adopt(block) => Event::Adopted(self.0.get(&block) == Some(owner)),
                    Action::Done(claimed) => return claimed,
                };
                claim.1 = claim.0.next(event);
            }
        }
    }

    #[test]
    fn takes_the_lowest_free_block() {
        let (network, a) = (network("10.9.0.0/16"), node("a"));
        let mut store = Store(BTreeMap::from([("0-0-6".parse().unwrap(), node("b"))]));
        let claimed = store.run(Claim::new(&network, &a, Target::AnyBlock, []), &a);
        assert_eq!(claimed, Claimed::Own("0-64-6".parse().unwrap()));
    }

    #[test]
    fn adopts_what_it_owns_before_it_claims() {
        let (network, a) = (network("10.9.0.0/16"), node("a"));
        let (old, known): (Block, Block) = ("0-128-6".parse().unwrap(), "0-0-6".parse().unwrap());
        let mut store = Store(BTreeMap::from([(old, a.clone()), (known, a.clone())]));
        let claimed = store.run(Claim::new(&network, &a, Target::AnyBlock, [known]), &a);
        assert_eq!(claimed, Claimed::Own(old));
        assert_eq!(store.0.len(), 2);
    }

    #[test]
    fn skips_a_vast_excluded_range_at_once() {
        let mut family = FamilyRecord::new("fd00:7::/64".parse().unwrap());
        family.gateway = Some("fd00:7::1".parse().unwrap());
        let pool = PoolRecord {
            ipv6: Some(family),
            exclude: vec!["fd00:7::/98".parse().unwrap()],
            ..PoolRecord::default()
        };
        let network = NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
            .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
            .unwrap();
        let a = node("a");
        let claimed = Store::default().run(Claim::new(&network, &a, Target::AnyBlock, []), &a);
        assert_eq!(claimed, Claimed::Own("0-1073741824-6".parse().unwrap()));
    }

    #[test]
    fn passes_over_blocks_that_hold_nothing_to_hand_out() {
        let (network, a) = (network("10.9.0.0/30"), node("a"));
        let mut store = Store::default();
        let claimed = store.run(Claim::new(&network, &a, Target::AnyBlock, []), &a);
        assert_eq!(claimed, Claimed::Own("0-2-0".parse().unwrap()));
        let known = store.0.keys().copied().collect::<Vec<_>>();
        let claimed = store.run(Claim::new(&network, &a, Target::AnyBlock, known), &a);
        assert_eq!(claimed, Claimed::Exhausted { blocks: 4, nodes: 1 });
    }

    #[test]
    fn a_wanted_block_is_claimed_adopted_or_somebody_elses() {
        let (network, a, b) = (network("10.9.0.0/16"), node("a"), node("b"));
        let mut store = Store::default();
        let block: Block = "0-640-6".parse().unwrap();
        let target = Target::Exactly(block);
        for _ in 0..2 {
            let claimed = store.run(Claim::new(&network, &a, target, []), &a);
            assert_eq!(claimed, Claimed::Own(block));
        }
        let claimed = store.run(Claim::new(&network, &b, target, []), &b);
        assert_eq!(claimed, Claimed::OwnedBy(a));
    }

    #[test]
    fn a_thousand_nodes_at_once_settle_in_few_rounds() {
        let network = network("10.0.0.0/10");
        let names: Vec<NodeName> = (0..1000).map(|i| node(&format!("node-{i}"))).collect();
        let mut store = BTreeMap::new();
        let mut claims: Vec<_> = names
            .iter()
            .map(|name| (name, Claim::new(&network, name, Target::AnyBlock, [])))
            .collect();
        let mut rounds = 0;
        while !claims.is_empty() {
            rounds += 1;
            assert!(rounds <= 4, "{} nodes still without a block", claims.len());
            // The worst case: all of them read the same list before any of them writes.
            let list: BTreeMap<Block, NodeName> = store.clone();
            claims.retain_mut(|(name, (claim, _))| {
                let Action::Create(block) = claim.next(Event::Listed(list.clone())) else {
                    panic!("a free block was to be had");
                };
                let won = !store.contains_key(&block);
                store.entry(block).or_insert_with(|| (*name).clone());
                !matches!(claim.next(Event::Created(won)), Action::Done(Claimed::Own(_)))
            });
        }
        assert_eq!(store.len(), 1000);
    }
}
