//! A network as a user asks for it: by a CNI configuration, or on `weftctl`'s command line.
//!
//! Every key is optional. A spec that names subnets can make a network; any spec can be held
//! against the network that exists, and then only what it says is compared.

use crate::network::{Masquerade, Mode, Network, NetworkRecord, Route, check_mtu, full_pool};
use crate::pool::{Pool, PoolRecord};
use crate::{Incarnation, ModelError, NetworkName, Vni};

/// A network as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSpec {
    /// The VNI; absent: the next free one.
    pub vni: Option<Vni>,
    /// Reach of the containers; absent: beyond the network by a gateway.
    pub mode: Option<Mode>,
    /// Masquerading of traffic that leaves; absent: off.
    pub masquerade: Option<Masquerade>,
    /// The MTU in bytes; absent: by each node's underlay.
    pub mtu: Option<u32>,
    /// The subnets; empty: those of the network that exists.
    pub pools: Vec<PoolRecord>,
    /// Routes to store with a new network. An existing network's routes are not compared: each
    /// configuration may have its own.
    pub routes: Vec<Route>,
}

/// A key on which a spec and an existing network disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key as a user writes it.
    pub key: &'static str,
    /// The value asked for.
    pub asked: String,
    /// The value that the network has.
    pub stored: String,
}

impl NetworkSpec {
    /// Returns whether the spec says enough to make a network.
    pub fn can_create(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Checks what can be checked without knowing the network.
    pub fn check(&self) -> Result<(), ModelError> {
        if let Some(value) = self.mtu {
            check_mtu(value)?;
        }
        self.full_pools().map(drop)
    }

    /// The network that the spec describes, with `vni` where the spec leaves it open.
    pub fn to_network(&self, name: &NetworkName, vni: Vni) -> Result<Network, ModelError> {
        Network::new(NetworkRecord {
            name: name.clone(),
            incarnation: Incarnation::default(),
            vni: self.vni.unwrap_or(vni),
            mode: self.mode.unwrap_or_default(),
            masquerade: self.masquerade.unwrap_or_default(),
            mtu: self.mtu,
            pools: self.full_pools()?,
            routes: self.routes.clone(),
        })
    }

    /// The first key on which the spec contradicts `network`.
    pub fn difference(&self, network: &Network) -> Result<Option<Difference>, ModelError> {
        let stored = network.record();
        let differs = |key, asked: String, stored: String| {
            (asked != stored).then_some(Difference { key, asked, stored })
        };
        let vni = self.vni.and_then(|vni| differs("vni", vni.to_string(), stored.vni.to_string()));
        let mode = self
            .mode
            .and_then(|mode| differs("isGateway", is_gateway(mode), is_gateway(stored.mode)));
        let masquerade = self
            .masquerade
            .and_then(|masquerade| differs("ipMasq", is_on(masquerade), is_on(stored.masquerade)));
        let mtu = self.mtu.and_then(|mtu| {
            let stored = stored.mtu.map_or_else(|| "by the underlay".to_owned(), |m| m.to_string());
            differs("mtu", mtu.to_string(), stored)
        });
        if let Some(difference) = vni.or(mode).or(masquerade).or(mtu) {
            return Ok(Some(difference));
        }
        // The gateway that a pool gets when nobody names one depends on the mode, so compare
        // with the mode that the network has.
        let asked = Self { mode: Some(stored.mode), ..self.clone() };
        Ok(asked.full_pools()?.iter().find_map(|pool| pool_difference(pool, stored)))
    }

    /// The pools with their defaults filled in, checked.
    fn full_pools(&self) -> Result<Vec<Pool>, ModelError> {
        let mode = self.mode.unwrap_or_default();
        self.pools.iter().map(|record| full_pool(record, mode)).collect()
    }
}

fn is_gateway(mode: Mode) -> String {
    (mode == Mode::Gateway).to_string()
}

fn is_on(masquerade: Masquerade) -> String {
    (masquerade == Masquerade::On).to_string()
}

fn pool_difference(asked: &Pool, stored: &NetworkRecord) -> Option<Difference> {
    let subnets = |pool: &Pool| {
        pool.subnets().map(|subnet| subnet.to_string()).collect::<Vec<_>>().join(" + ")
    };
    let Some(same) = stored.pools.iter().find(|pool| pool.subnets().eq(asked.subnets())) else {
        let stored = stored.pools.iter().map(subnets).collect::<Vec<_>>().join(", ");
        return Some(Difference { key: "subnet", asked: subnets(asked), stored });
    };
    let address = |a: Option<std::net::IpAddr>| {
        a.map_or_else(|| "(none)".to_owned(), |address| address.to_string())
    };
    for (asked, stored) in asked.families().zip(same.families()) {
        for (key, asked, stored) in [
            ("gateway", asked.gateway, stored.gateway),
            ("rangeStart", asked.range_start, stored.range_start),
            ("rangeEnd", asked.range_end, stored.range_end),
        ] {
            if asked != stored {
                return Some(Difference { key, asked: address(asked), stored: address(stored) });
            }
        }
    }
    let (asked_record, stored_record) = (asked.record(), same.record());
    if asked_record.exclude != stored_record.exclude {
        let list = |record: &PoolRecord| {
            record.exclude.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (asked, stored) = (list(asked_record), list(stored_record));
        return Some(Difference { key: "exclude", asked, stored });
    }
    if asked_record.block_bits.is_some() && asked.block_bits() != same.block_bits() {
        let (asked, stored) = (asked.block_bits().get(), same.block_bits().get());
        return Some(Difference {
            key: "blockBits",
            asked: asked.to_string(),
            stored: stored.to_string(),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::FamilyRecord;

    fn spec(subnet: &str) -> NetworkSpec {
        let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
        let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
        NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
    }

    fn network(spec: &NetworkSpec) -> Network {
        let name = NetworkName::new("ovnet1").unwrap();
        spec.to_network(&name, Vni::FIRST_AUTOMATIC).unwrap()
    }

    fn difference(asked: &NetworkSpec, stored: &NetworkSpec) -> Option<Difference> {
        asked.difference(&network(stored)).unwrap()
    }

    #[test]
    fn gateway_defaults_to_the_first_host_unless_internal() {
        let gateway = |spec: &NetworkSpec| {
            network(spec).record().pools[0].record().ipv4.as_ref().unwrap().gateway
        };
        assert_eq!(gateway(&spec("10.9.0.0/16")), Some("10.9.0.1".parse().unwrap()));
        let internal = NetworkSpec { mode: Some(Mode::Internal), ..spec("10.9.0.0/16") };
        assert_eq!(gateway(&internal), None);
    }

    #[test]
    fn only_what_is_said_is_compared() {
        let stored = NetworkSpec { mtu: Some(1400), ..spec("10.9.0.0/16") };
        assert_eq!(difference(&NetworkSpec::default(), &stored), None);
        assert_eq!(difference(&spec("10.9.0.0/16"), &stored), None);
        let mut second_pool = stored.clone();
        second_pool.pools.push(spec("10.10.0.0/16").pools.remove(0));
        assert_eq!(difference(&spec("10.10.0.0/16"), &second_pool), None);
    }

    #[test]
    fn a_pool_with_nothing_to_hand_out_is_refused_by_what_takes_it_all() {
        let refusal = |change: &dyn Fn(&mut PoolRecord)| {
            let mut spec = spec("10.9.0.0/24");
            change(&mut spec.pools[0]);
            spec.check().unwrap_err().to_string()
        };
        let own = Some("10.9.0.0".parse().unwrap());
        let range = refusal(&|pool| pool.ipv4.as_mut().unwrap().range_end = own);
        assert!(range.starts_with("rangeEnd 10.9.0.0: nothing is left"), "{range}");
        let excluded = refusal(&|pool| pool.exclude = vec!["10.9.0.0/24".parse().unwrap()]);
        assert!(excluded.starts_with("exclude 10.9.0.0/24: nothing is left"), "{excluded}");
    }

    #[test]
    fn a_contradiction_names_key_and_both_values() {
        let stored = spec("10.9.0.0/16");
        let found = difference(&spec("10.8.0.0/16"), &stored).unwrap();
        assert_eq!(
            (found.key, &*found.asked, &*found.stored),
            ("subnet", "10.8.0.0/16", "10.9.0.0/16")
        );
        let vni = NetworkSpec { vni: Some(Vni::MAX), ..spec("10.9.0.0/16") };
        assert_eq!(difference(&vni, &stored).unwrap().key, "vni");
        let mtu = NetworkSpec { mtu: Some(1400), ..spec("10.9.0.0/16") };
        assert_eq!(difference(&mtu, &stored).unwrap().stored, "by the underlay");
        let internal = NetworkSpec { mode: Some(Mode::Internal), ..spec("10.9.0.0/16") };
        assert_eq!(difference(&internal, &stored).unwrap().key, "isGateway");
        let mut gateway = spec("10.9.0.0/16");
        gateway.pools[0].ipv4.as_mut().unwrap().gateway = Some("10.9.0.254".parse().unwrap());
        assert_eq!(difference(&gateway, &stored).unwrap().key, "gateway");
    }
}
