//! Revision keys: small counters that tell nodes which groups of blocks to read again.
//!
//! Every transaction that changes a block or an endpoint also writes the revision key of its group.
//! A writer passes its operations through [`with_revisions`], which adds these writes. Nodes wait
//! on the shards, and read the groups whose revision key has another revision than before.

use std::collections::BTreeSet;

use weft_model::NetworkName;

use super::{Group, block_of, endpoint_of, revision};
use crate::{MAX_OPS, Op};

/// Writes the revision key of a group. `nonce` must be random: Consul ignores a write of the value
/// that is there already, and a counter would have to be read first.
fn touch(network: &NetworkName, group: Group, nonce: u64) -> Op {
    Op::put(revision(network, group), format!("\"{nonce:016x}\"").into_bytes())
}

/// Adds to `ops` the revision keys of all groups whose blocks or endpoints they change, each once.
/// A check changes nothing. `nonce` must be random.
///
/// The operations together with one for each group must stay within [`MAX_OPS`].
/// [`in_transactions`] splits operations that need not happen together.
pub fn with_revisions(mut ops: Vec<Op>, nonce: u64) -> Vec<Op> {
    let groups: BTreeSet<_> = ops.iter().filter_map(group_of).collect();
    for (network, group) in groups {
        let touch = touch(&network, group, nonce);
        if !ops.iter().any(|op| op.key() == touch.key()) {
            ops.push(touch);
        }
    }
    ops
}

/// Splits `ops` into as few transactions as their order allows, each complete with its revision
/// keys and with room for `reserve` more operations, such as a check that all share. `nonce` must
/// be random; each transaction has a value of its own, since Consul ignores a write of the value
/// that is there already.
pub fn in_transactions(ops: Vec<Op>, reserve: usize, nonce: u64) -> Vec<Vec<Op>> {
    let mut transactions = vec![];
    let (mut current, mut groups, mut weight) = (vec![], BTreeSet::new(), reserve);
    for op in ops {
        let group = group_of(&op).filter(|group| !groups.contains(group));
        if weight + op.weight() + usize::from(group.is_some()) > MAX_OPS && !current.is_empty() {
            let nonce = nonce.wrapping_add(transactions.len() as u64);
            transactions.push(with_revisions(std::mem::take(&mut current), nonce));
            groups.clear();
            weight = reserve;
        }
        weight += op.weight();
        if let Some(group) = group_of(&op) {
            weight += usize::from(groups.insert(group));
        }
        current.push(op);
    }
    if !current.is_empty() {
        let nonce = nonce.wrapping_add(transactions.len() as u64);
        transactions.push(with_revisions(current, nonce));
    }
    transactions
}

/// The group whose blocks or endpoints `op` changes.
fn group_of(op: &Op) -> Option<(NetworkName, Group)> {
    if !op.is_change() {
        return None;
    }
    let block = block_of(op.key());
    let (network, block) =
        block.or_else(|| endpoint_of(op.key()).map(|(network, block, _)| (network, block)))?;
    Some((network.name, Group::of(&block)))
}

#[cfg(test)]
mod tests {
    use weft_model::NetworkId;

    use super::*;
    use crate::{Expected, Revision, keys, txn};

    fn network(name: &str) -> NetworkId {
        format!("{name}@00000000").parse().unwrap()
    }

    #[test]
    fn transactions_of_one_group_write_different_values_to_its_revision() {
        let red = network("red");
        let ops =
            (0..64u64).map(|n| Op::delete(keys::block(&red, &format!("0-{n}-0").parse().unwrap())));
        let parts = in_transactions(ops.collect(), 1, u64::MAX);
        let key = revision(&red.name, "0-0".parse().unwrap());
        let touch = |ops: &Vec<Op>| ops.iter().find(|op| op.key() == key).cloned().unwrap();
        let touches: Vec<Op> = parts.iter().map(touch).collect();
        assert_eq!(touches.len(), 2);
        assert_ne!(touches[0], touches[1]);
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
            Op::check(keys::network(&red.name), Expected::Revision(old)),
            Op::put(keys::node(&"a".parse().unwrap()), vec![]),
        ];
        let all = with_revisions(ops.clone(), 0xab);
        assert_eq!(all[..ops.len()], ops);
        let touched: Vec<&str> = all[ops.len()..].iter().map(Op::key).collect();
        let group = |text: &str| text.parse().unwrap();
        assert_eq!(
            touched,
            [
                revision(&blue.name, group("1-0")),
                revision(&red.name, group("0-0")),
                revision(&red.name, group("0-1")),
            ]
        );
        assert_eq!(all[ops.len()].value(), Some(&b"\"00000000000000ab\""[..]));
        assert_eq!(txn::validate("test store", &all), Ok(()));
        // A second pass adds nothing.
        assert_eq!(with_revisions(all.clone(), 1), all);
    }

    #[test]
    fn splits_operations_into_transactions_that_every_store_takes() {
        let red = network("red");
        let old = Revision::new(7);
        // 200 blocks in 4 groups.
        let ops: Vec<Op> = (0..200_u32)
            .map(|n| format!("0-{}-6", n * 64).parse().unwrap())
            .map(|block| Op::delete_if(keys::block(&red, &block), old))
            .collect();
        for reserve in [0, 1, 5] {
            let transactions = in_transactions(ops.clone(), reserve, 1);
            assert_eq!(transactions.len(), 7);
            let mut done = vec![];
            for mut all in transactions {
                let is_touch = |op: &&Op| op.key().starts_with("revisions/");
                assert!((1..=2).contains(&all.iter().filter(is_touch).count()));
                done.extend(all.iter().filter(|op| !is_touch(op)).cloned());
                all.extend((0..reserve).map(|n| Op::delete(format!("more/{n}"))));
                assert_eq!(txn::validate("test store", &all), Ok(()));
            }
            assert_eq!(done, ops);
        }
        assert_eq!(in_transactions(vec![], 0, 1), Vec::<Vec<Op>>::new());
    }
}
