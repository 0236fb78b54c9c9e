//! A network's definition: the record behind `networks/<network>`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::pool::{Addresses, FamilyRecord, HostNumber, Pool, PoolIndex, PoolRecord};
use crate::{Block, Incarnation, MacAddr, ModelError, NetworkId, NetworkName, Subnet, Vni, mtu};

/// Reach of the network's containers: beyond it by a gateway, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every node's bridge carries the gateway address: containers reach their host and beyond.
    #[default]
    Gateway,
    /// No address on the host and no way out. Two internal networks may use one subnet.
    Internal,
}

/// Source address of traffic that leaves the overlay: the node's own, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Masquerade {
    /// It does: peers outside answer to the node.
    On,
    /// It keeps the container's address: the outside must route the subnet.
    #[default]
    Off,
}

/// A route for containers, as the network's definition or a configuration has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; absent: the network's gateway of the destination's family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// A network's definition as it stands in the store, before it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRecord {
    /// The network's name.
    pub name: NetworkName,
    /// Told apart by this from other networks that have had the name.
    #[serde(default)]
    pub incarnation: Incarnation,
    /// Its VXLAN network identifier.
    pub vni: Vni,
    /// Reach of its containers.
    #[serde(default)]
    pub mode: Mode,
    /// Masquerading of traffic that leaves.
    #[serde(default)]
    pub masquerade: Masquerade,
    /// The MTU of every interface in bytes; absent: each node's underlay MTU less the overhead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The subnets.
    pub pools: Vec<Pool>,
    /// Routes for containers whose own configuration names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// A checked network definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NetworkRecord", into = "NetworkRecord")]
pub struct Network(NetworkRecord);

impl Network {
    /// Checks a definition.
    pub fn new(record: NetworkRecord) -> Result<Self, ModelError> {
        if let Some(value) = record.mtu {
            check_mtu(value)?;
        }
        if record.pools.is_empty() {
            return Err(ModelError::key("subnet", "(none)", "a network needs at least one subnet"));
        }
        PoolIndex::new(record.pools.len() - 1)?;
        let subnets: Vec<Subnet> = record.pools.iter().flat_map(Pool::subnets).collect();
        for (i, subnet) in subnets.iter().enumerate() {
            if let Some(other) = subnets[..i].iter().find(|other| other.overlaps(subnet)) {
                let reason = format!("overlaps {other} of the same network");
                return Err(ModelError::key("subnet", subnet, reason));
            }
        }
        Ok(Self(record))
    }

    /// The definition as it stands in the store.
    pub fn record(&self) -> &NetworkRecord {
        &self.0
    }

    /// The network's name.
    pub fn name(&self) -> &NetworkName {
        &self.0.name
    }

    /// The network's name and incarnation.
    pub fn id(&self) -> NetworkId {
        NetworkId { name: self.0.name.clone(), incarnation: self.0.incarnation }
    }

    /// The network as another incarnation.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Incarnation) -> Self {
        self.0.incarnation = incarnation;
        self
    }

    /// The network's VNI.
    pub fn vni(&self) -> Vni {
        self.0.vni
    }

    /// Reach of the network's containers.
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// The pools with their indexes.
    pub fn pools(&self) -> impl Iterator<Item = (PoolIndex, &Pool)> {
        // `new` made sure that every index fits.
        self.0.pools.iter().enumerate().filter_map(|(i, p)| Some((PoolIndex::new(i).ok()?, p)))
    }

    /// The pool with `index`.
    pub fn pool(&self, index: PoolIndex) -> Option<&Pool> {
        self.0.pools.get(usize::from(index.get()))
    }

    /// All subnets of all pools.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> + '_ {
        self.0.pools.iter().flat_map(Pool::subnets)
    }

    /// The pool and host number of `address`, if a subnet of the network holds it.
    pub fn locate(&self, address: IpAddr) -> Option<(PoolIndex, HostNumber)> {
        self.pools().find_map(|(index, pool)| Some((index, pool.host_number(address)?)))
    }

    /// The block that `address` belongs to.
    pub fn block_of(&self, address: IpAddr) -> Option<Block> {
        let (index, host) = self.locate(address)?;
        self.block_at(index, host)
    }

    /// The block that host `host` of pool `index` belongs to; none for a pool that the network
    /// lacks.
    pub fn block_at(&self, index: PoolIndex, host: HostNumber) -> Option<Block> {
        Some(Block::containing(index, host, self.pool(index)?.block_bits()))
    }

    /// The family record that `address` belongs to.
    pub fn family_of(&self, address: IpAddr) -> Option<&FamilyRecord> {
        self.0.pools.iter().flat_map(Pool::families).find(|f| f.subnet.contains(address))
    }

    /// The addresses of host `host` of pool `index`; none for a pool that the network lacks.
    pub fn addresses(&self, index: PoolIndex, host: HostNumber) -> Option<Addresses> {
        Some(self.pool(index)?.addresses(index, host))
    }

    /// The pool and host number whose addresses have `mac` by the rule, the inverse of
    /// [`Network::addresses`]; none for a MAC that follows from no address of the network.
    pub fn host_of(&self, mac: MacAddr) -> Option<(PoolIndex, HostNumber)> {
        let [_, _, a, b, c, d] = mac.bytes();
        let located = self.locate(IpAddr::from([a, b, c, d])).filter(|(index, host)| {
            self.addresses(*index, *host).is_some_and(|addresses| addresses.mac == mac)
        });
        located.or_else(|| {
            let (index, host) = mac.ipv6_only()?;
            let pool = self.pool(index)?;
            let inside = host.get() >> pool.host_bits() == 0;
            (inside && pool.addresses(index, host).mac == mac).then_some((index, host))
        })
    }

    /// IP and MAC addresses of `block` that may be in use. Peers of the
    /// block's owner program exactly these.
    pub fn addresses_of(&self, block: Block) -> impl Iterator<Item = Addresses> + '_ {
        let pool = self.pool(block.pool()).filter(|pool| block.belongs_to(pool));
        pool.into_iter().flat_map(move |pool| {
            block
                .hosts()
                .filter(|host| pool.is_assignable(*host))
                .map(move |host| pool.addresses(block.pool(), host))
        })
    }

    /// The MAC of this network's bridge on `node` while the node has no address of its own there.
    pub fn bridge_mac_without_address(&self, node: &crate::NodeName) -> MacAddr {
        MacAddr::from_seed(&format!("{node}/{}", self.name()))
    }

    /// The network with `pools` added to it; those that it has already are not added again. Indexes
    /// of pools stay what they are.
    pub fn extended(&self, pools: &[PoolRecord]) -> Result<Self, ModelError> {
        let families = |pool: &Pool| (pool.record().ipv4.is_some(), pool.record().ipv6.is_some());
        let mut record = self.0.clone();
        for new in pools {
            let pool = full_pool(new, self.mode())?;
            if record.pools.contains(&pool) {
                continue;
            }
            // Else which families a container gets would depend on the pool that has room.
            if let Some(first) = record.pools.first()
                && families(first) != families(&pool)
            {
                let has = first.subnets().map(|s| s.to_string()).collect::<Vec<_>>().join(" + ");
                let subnet = pool.subnets().next().map_or_else(String::new, |s| s.to_string());
                let reason = format!("a new pool needs the same families as the first one, {has}");
                return Err(ModelError::key("subnet", subnet, reason));
            }
            record.pools.push(pool);
        }
        Self::new(record)
    }

    /// Why the two cannot exist side by side, if they cannot: nodes route between their bridges
    /// and the outside, so two networks with a way out must not share an address.
    pub fn conflict_with(&self, other: &Self) -> Option<ModelError> {
        if self.mode() == Mode::Internal || other.mode() == Mode::Internal {
            return None;
        }
        let clash = |mine: Subnet| {
            let theirs = other.subnets().find(|theirs| theirs.overlaps(&mine))?;
            let reason = format!("overlaps {theirs} of network {}", other.name());
            Some(ModelError::key("subnet", mine, reason))
        };
        self.subnets().find_map(clash)
    }
}

/// Checks an MTU that a user asked for.
pub(crate) fn check_mtu(value: u32) -> Result<(), ModelError> {
    if (mtu::MINIMUM..=mtu::MAXIMUM).contains(&value) {
        return Ok(());
    }
    let reason = format!("an MTU lies between {} and {}", mtu::MINIMUM, mtu::MAXIMUM);
    Err(ModelError::key("mtu", value, reason))
}

/// A pool with its defaults filled in, checked: one that has something to hand out.
pub(crate) fn full_pool(record: &PoolRecord, mode: Mode) -> Result<Pool, ModelError> {
    let pool = Pool::new(with_gateways(record.clone(), mode))?;
    if pool.next_assignable(pool.first()).is_some() {
        return Ok(pool);
    }
    let reason = "nothing is left to hand out: the network's, broadcast and gateway addresses and \
                  what is excluded are not";
    let ends = pool.families().find_map(|family| {
        let start = family.range_start.map(|start| ("rangeStart", start));
        start.or_else(|| family.range_end.map(|end| ("rangeEnd", end)))
    });
    Err(match (ends, record.exclude.first()) {
        (Some((key, value)), _) => ModelError::key(key, value, reason),
        (None, Some(excluded)) => ModelError::key("exclude", excluded, reason),
        (None, None) => ModelError::key(
            "subnet",
            pool.subnets().map(|s| s.to_string()).collect::<Vec<_>>().join(" + "),
            reason,
        ),
    })
}

/// Fills in the gateway where none is named: the first host, as `host-local` does. An internal
/// network has none.
fn with_gateways(mut record: PoolRecord, mode: Mode) -> PoolRecord {
    let fill = |family: &mut Option<FamilyRecord>| {
        if let Some(family) = family {
            family.gateway = match mode {
                Mode::Gateway => family.gateway.or_else(|| family.subnet.nth(1)),
                Mode::Internal => None,
            };
        }
    };
    fill(&mut record.ipv4);
    fill(&mut record.ipv6);
    record
}

impl TryFrom<NetworkRecord> for Network {
    type Error = ModelError;
    fn try_from(record: NetworkRecord) -> Result<Self, ModelError> {
        Self::new(record)
    }
}

impl From<Network> for NetworkRecord {
    fn from(network: Network) -> NetworkRecord {
        network.0
    }
}

#[cfg(test)]
mod tests;
