//! Short simulations. `weft-sim` runs long ones: see scripts/test.

use weft_sim::{Options, Report, Sabotage, run};

fn small(seed: u64, sabotage: Sabotage) -> Options {
    Options {
        seed,
        nodes: 20,
        steps: 20_000,
        subnet: "10.9.0.0/26".into(),
        sabotage,
        ..Options::default()
    }
}

#[test]
fn no_address_is_held_twice_and_none_is_lost() {
    for seed in 0..12 {
        let report = run(&small(seed, Sabotage::None)).unwrap();
        assert!(report.added > 50 && report.borrowed > 0, "{report:?}");
    }
}

#[test]
fn a_run_can_be_repeated() {
    let run = || -> Report { run(&small(7, Sabotage::None)).unwrap() };
    assert_eq!(run(), run());
}

#[test]
fn addresses_of_a_tiny_network_can_be_used_by_all_nodes() {
    for seed in 0..4 {
        let options = Options {
            subnet: "10.9.0.0/28".into(),
            block_bits: 0,
            nodes: 8,
            ..small(seed, Sabotage::None)
        };
        run(&options).unwrap();
    }
}

/// Returns whether some run of many finds the fault. Blocks change hands all the time where they
/// hold two addresses each and there are fewer of them than nodes.
fn is_found(sabotage: Sabotage) -> bool {
    let scarce = |seed, nodes, subnet: &str| Options {
        steps: 50_000,
        nodes,
        subnet: subnet.into(),
        block_bits: 1,
        ..small(seed, sabotage)
    };
    let fails = |options: Options| run(&options).is_err();
    (0..100).any(|seed| {
        fails(scarce(seed, 20, "10.9.0.0/28")) || fails(scarce(seed, 30, "10.9.0.0/27"))
    })
}

#[test]
fn simulation_detects_stale_lists() {
    assert!(is_found(Sabotage::StaleLists));
}

#[test]
fn simulation_detects_unchecked_transactions() {
    assert!(is_found(Sabotage::UncheckedTransactions));
}

#[test]
fn simulation_detects_blind_deletes() {
    assert!(is_found(Sabotage::BlindDeletes));
}
