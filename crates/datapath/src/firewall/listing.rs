//! The table as `nft --json list` shows it, as far as it is compared.
//!
//! The types of `nftables::schema` cannot read it: they have no verdict maps, and take the flags of
//! `masquerade` only as a list. Here nothing is read but names, so that objects of other kinds, and
//! statements of later releases of `nft`, are no obstacle.

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    nftables: Vec<Object>,
}

/// An object of the table; with neither field, one that is not compared.
#[derive(Debug, Deserialize)]
struct Object {
    #[serde(alias = "map")]
    set: Option<Set>,
    rule: Option<Rule>,
}

/// A set or a map.
#[derive(Debug, Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Element {
    OfSet(String),
    OfMap(String, IgnoredAny),
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Rule {
    chain: String,
}

impl Listing {
    pub(super) fn of(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// The number of rules in `chain`.
    pub(super) fn rules(&self, chain: &str) -> usize {
        let rules = self.nftables.iter().filter_map(|object| object.rule.as_ref());
        rules.filter(|rule| rule.chain == chain).count()
    }

    /// Returns whether the set or map has an element for the interface called `name`.
    pub(super) fn holds(&self, set: &str, name: &str) -> bool {
        let sets = self.nftables.iter().filter_map(|object| object.set.as_ref());
        let mut elements = sets.filter(|s| s.name == set).flat_map(|set| &set.elem);
        elements.any(|element| match element {
            Element::OfSet(key) | Element::OfMap(key, _) => key == name,
            Element::Other(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_skips_everything_else() {
        let json = br#"{"nftables": [
            {"metainfo": {"version": "9.9"}},
            {"table": {"family": "inet", "name": "weft", "handle": 1}},
            {"set": {"name": "bridges", "type": "ifname", "elem": ["wb1", {"prefix": {"len": 1}}]}},
            {"set": {"name": "internal", "type": "ifname"}},
            {"map": {"name": "isolate", "elem": [["wb1", {"goto": {"target": "c"}}]]}},
            {"rule": {"chain": "c", "expr": [{"masquerade": {"flags": "fully-random"}}]}},
            {"rule": {"chain": "c", "expr": [{"of tomorrow": [null]}]}}]}"#;
        let listing = Listing::of(json).unwrap();
        assert_eq!((listing.rules("c"), listing.rules("d")), (2, 0));
        assert!(listing.holds("bridges", "wb1") && listing.holds("isolate", "wb1"));
        assert!(!listing.holds("internal", "wb1") && !listing.holds("bridges", "wb2"));
    }
}
