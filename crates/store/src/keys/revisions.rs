//! Revision keys: small counters that tell nodes which groups of blocks to read again.
//!
//! Every transaction that changes a block or an endpoint also writes the revision key of its group.
//! A writer passes its operations through [`with_revisions`], which adds these writes. Nodes wait on
//! the shards, and read the groups whose revision key has another revision than before.

use std::collections::BTreeSet;

use weft_model::NetworkName;

use super::{Group, block_of, endpoint_of, revision};
use crate::Op;

/// Writes the revision key of a group. `nonce` must be random: Consul ignores a write of the value
/// that is there already, and a counter would have to be read first.
pub fn touch(network: &NetworkName, group: Group, nonce: u64) -> Op {
    Op::put(revision(network, group), format!("\"{nonce:016x}\"").into_bytes())
}

/// Adds to `ops` the revision keys of all groups whose blocks or endpoints they change, each once.
/// A check changes nothing. `nonce` must be random.
///
/// Operations on blocks of one group need one more operation, those on blocks of many groups one
/// more for each: split them so that the sum stays within [`MAX_OPS`](crate::MAX_OPS).
pub fn with_revisions(mut ops: Vec<Op>, nonce: u64) -> Vec<Op> {
    let mut groups = BTreeSet::new();
    for op in ops.iter().filter(|op| op.is_change()) {
        if let Some((network, block)) = block_of(op.key()) {
            groups.insert((network, Group::of(&block)));
        } else if let Some((network, block, _)) = endpoint_of(op.key()) {
            groups.insert((network, Group::of(&block)));
        }
    }
    for (network, group) in groups {
        let touch = touch(&network, group, nonce);
        if !ops.iter().any(|op| op.key() == touch.key()) {
            ops.push(touch);
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expected, Revision, keys, txn};

    fn network(name: &str) -> NetworkName {
        NetworkName::new(name).unwrap()
    }

    #[test]
    fn touches_each_changed_group_once() {
        let (red, blue) = (network("red"), network("blue"));
        let block = |text: &str| text.parse().unwrap();
        let old = Revision::new(7);
        let ops = vec![
            Op::create(keys::block(&red, &block("0-0-6")), vec![]),
            Op::update(keys::block(&red, &block("0-64-6")), old, vec![]),
            Op::delete(keys::endpoint(&red, &block("0-4096-6"), "10.9.16.1".parse().unwrap())),
            Op::delete_if(keys::block(&blue, &block("1-0-4")), old),
            Op::check(keys::block(&blue, &block("0-0-4")), Expected::Revision(old)),
            Op::check(keys::network(&red), Expected::Revision(old)),
            Op::put(keys::node(&"a".parse().unwrap()), vec![]),
        ];
        let all = with_revisions(ops.clone(), 0xab);
        assert_eq!(all[..ops.len()], ops);
        let touched: Vec<&str> = all[ops.len()..].iter().map(Op::key).collect();
        let group = |text: &str| text.parse().unwrap();
        assert_eq!(
            touched,
            [
                revision(&blue, group("1-0")),
                revision(&red, group("0-0")),
                revision(&red, group("0-1")),
            ]
        );
        assert_eq!(all[ops.len()].value(), Some(&b"\"00000000000000ab\""[..]));
        assert_eq!(txn::validate("test store", &all), Ok(()));
        // A second pass adds nothing.
        assert_eq!(with_revisions(all.clone(), 1), all);
    }
}
