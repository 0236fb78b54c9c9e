use super::*;
use weft_cluster::Member;
use weft_model::UsageRecord;
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{NetworkSpec, Vni};
use weft_store::Revision;

fn network(pool: PoolRecord) -> Network {
    NetworkSpec { pools: vec![pool], ..NetworkSpec::default() }
        .to_network(&NetworkName::new("n").unwrap(), Vni::FIRST_AUTOMATIC)
        .unwrap()
}

fn ipv4(subnet: &str) -> PoolRecord {
    let family = FamilyRecord::new(subnet.parse().unwrap());
    PoolRecord { ipv4: Some(family), ..PoolRecord::default() }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

#[test]
fn counts_addresses_as_they_are_handed_out() {
    let plain = ipv4("10.9.0.0/22");
    let mut odd = ipv4("10.9.0.0/22");
    odd.exclude = vec!["10.9.1.0/25".parse().unwrap(), "10.9.1.64/32".parse().unwrap()];
    let mut ranged = ipv4("10.9.0.0/22");
    if let Some(family) = &mut ranged.ipv4 {
        family.range_start = Some("10.9.0.7".parse().unwrap());
        family.range_end = Some("10.9.2.200".parse().unwrap());
        family.gateway = Some("10.9.1.9".parse().unwrap());
    }
    let mut both = ipv4("10.9.0.0/22");
    both.ipv6 = Some(FamilyRecord::new("fd00:9::/64".parse().unwrap()));
    both.exclude = vec!["fd00:9::20/124".parse().unwrap()];
    for record in [plain, odd, ranged, both] {
        let network = network(record);
        let (_, pool) = network.pools().next().unwrap();
        for (from, to) in [(0, 1023), (0, 63), (64, 127), (250, 260), (960, 1023), (9, 9)] {
            let one_by_one = (from..=to).filter(|h| pool.is_assignable(HostNumber::new(*h)));
            let counted = assignable(pool, HostNumber::new(from), HostNumber::new(to));
            assert_eq!(counted, one_by_one.count() as u64, "{from} to {to} of {pool:?}");
        }
    }
}

#[test]
fn counts_addresses_of_vast_pool_at_once() {
    let family = FamilyRecord::new("fd00:9::/64".parse().unwrap());
    let network = network(PoolRecord { ipv6: Some(family), ..PoolRecord::default() });
    let usage = of(&network, &BTreeMap::new(), &BTreeMap::new(), &BTreeMap::new());
    assert_eq!(usage.addresses, (1 << 32) - 2, "the subnet's own and the gateway are left out");
    assert_eq!((usage.owned, usage.pools[0].unowned), (Some(0), Some(usage.addresses)));
}

#[test]
fn leaves_open_what_only_the_owner_knows() {
    let network = network(ipv4("10.9.0.0/24"));
    let blocks = BTreeMap::from([
        ("0-0-4".parse().unwrap(), node("a")),
        ("0-16-4".parse().unwrap(), node("b")),
        ("0-32-4".parse().unwrap(), node("b")),
    ]);
    let lent = Endpoint {
        node: node("c"),
        mac: "02:42:0a:09:00:11".parse().unwrap(),
        lender: Some(node("b")),
        loan: None,
    };
    let endpoints = BTreeMap::from([(
        "10.9.0.17".parse().unwrap(),
        Stored { record: lent, revision: Revision::new(1) },
    )]);
    let counts = BlockCounts::new(10, 4, 1, 1);
    let counts = BTreeMap::from([("0-0-4".parse().unwrap(), counts)]);
    let reports =
        BTreeMap::from([(node("a"), Reported { time: None, report: Report::Own, counts })]);
    let usage = of(&network, &blocks, &endpoints, &reports);
    assert_eq!((usage.addresses, usage.owned), (253, Some(46)));
    assert_eq!(usage.pools[0].unowned, Some(207));
    let [a, b, c] = &usage.nodes[..] else { panic!("{:?}", usage.nodes) };
    assert_eq!((a.addresses, a.parts.used()), (14, Some(4)));
    assert_eq!((b.blocks, b.addresses, b.parts.used(), b.parts.lent), (2, 32, None, 1));
    assert_eq!((c.blocks, c.borrowed), (0, 1));
    assert_eq!([a.report, b.report, c.report], [Report::Own, Report::Missing, Report::Missing]);
}

#[test]
fn counts_of_a_report_are_those_of_blocks_that_are_still_the_nodes() {
    let network = network(ipv4("10.9.0.0/24"));
    let block = |text: &str| text.parse::<Block>().unwrap();
    let record = |blocks: &[&str], counted| UsageRecord {
        counted,
        networks: BTreeMap::from([(
            network.name().clone(),
            blocks.iter().map(|b| (block(b), BlockCounts::new(11, 5, 2, 1))).collect(),
        )]),
    };
    let member =
        |alive| Member { record: serde_json::from_str(r#"{"machineId":"m"}"#).unwrap(), alive };
    // Node c took over a block of node b, and has not reported it.
    let records = BTreeMap::from([
        (node("a"), record(&["0-16-4"], 7)),
        (node("b"), record(&["0-32-4", "0-48-4"], 3)),
    ]);
    let members = BTreeMap::from([(node("a"), member(true)), (node("b"), member(false))]);
    let reports = Reports::new(records, members).of(network.name());
    let blocks = BTreeMap::from([
        (block("0-16-4"), node("a")),
        (block("0-32-4"), node("b")),
        (block("0-48-4"), node("c")),
    ]);
    let usage = of(&network, &blocks, &BTreeMap::new(), &reports);
    let [a, b, c] = &usage.nodes[..] else { panic!("{:?}", usage.nodes) };
    assert_eq!(
        (a.report, a.reported, b.report, b.reported),
        (Report::Current, Some(7), Report::Stale, Some(3))
    );
    let known = Parts { held: Some(2), kept: Some(2), lent: 1, free: Some(11) };
    assert_eq!((a.parts, b.parts), (known, known));
    assert_eq!((c.report, c.parts.used(), c.parts.free), (Report::Missing, None, None));
}
