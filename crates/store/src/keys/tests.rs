use super::*;

fn red() -> NetworkId {
    "red@0badcafe".parse().unwrap()
}

fn lender() -> NodeName {
    NodeName::new("host-1.example").unwrap()
}

fn block_at(text: &str) -> Block {
    text.parse().unwrap()
}

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 16, 5));

/// A key of each kind.
fn all_keys() -> Vec<String> {
    let block_ = block_at("0-4096-6");
    vec![
        network(&red().name),
        catalogue().to_owned(),
        vni(Vni::new(4097).unwrap()),
        node(&lender()),
        alive(&lender()),
        block(&red(), &block_),
        endpoint(&red(), &block_, V4),
        sticky(&red(), &block_, StickyId::of("web-0")),
        request(&lender(), &red(), LoanId::new(0xab)),
        revision(&red().name, Group::of(&block_)),
        usage(&lender()),
    ]
}

#[test]
fn layout_is_stable() {
    assert_eq!(
        all_keys()[..7],
        [
            "networks/red",
            "catalogue",
            "vnis/4097",
            "nodes/host-1.example",
            "alive/host-1.example",
            "blocks/red@0badcafe/0-1/0-4096-6",
            "endpoints/red@0badcafe/0-1/0-4096-6/10.9.16.5",
        ]
    );
    assert!(all_keys()[7].starts_with("sticky/red@0badcafe/0-4096-6/"));
    assert_eq!(all_keys()[8], "requests/host-1.example/red@0badcafe/00000000000000ab");
    let shard = Shard::of(&red().name, "0-1".parse().unwrap());
    assert_eq!(all_keys()[9], format!("revisions/{shard}/red/0-1"));
    assert_eq!(all_keys()[10], "usage/host-1.example");
}

#[test]
fn keys_are_paths_and_none_is_a_directory_of_another() {
    let mut deep = all_keys();
    deep.push(block(&red(), &block_at("0-0-6")));
    deep.push(endpoint(&red(), &block_at("0-0-6"), "fd00::1".parse().unwrap()));
    for key in &deep {
        crate::txn::validate_key("test store", key).unwrap();
        assert!(!deep.iter().any(|other| other.starts_with(&format!("{key}/"))), "{key}");
    }
}

#[test]
fn every_key_lies_under_its_prefixes() {
    let (network, block_) = (red(), block_at("0-4096-6"));
    let group = Group::of(&block_);
    let [net, _, vni, node, alive, block, endpoint, sticky, request, revision, usage] =
        <[String; 11]>::try_from(all_keys()).unwrap();
    for (key, prefix) in [
        (net, networks_prefix().to_owned()),
        (vni, vnis_prefix().to_owned()),
        (node, nodes_prefix().to_owned()),
        (alive, alive_prefix().to_owned()),
        (block.clone(), blocks_prefix(&network)),
        (block, blocks_of_group(&network, group)),
        (endpoint.clone(), endpoints_prefix(&network)),
        (endpoint.clone(), endpoints_of_group(&network, group)),
        (endpoint, endpoints_of_block(&network, &block_)),
        (sticky.clone(), sticky_prefix(&network)),
        (sticky, sticky_of_block(&network, &block_)),
        (request.clone(), requests_prefix().to_owned()),
        (request.clone(), requests_to(&lender())),
        (request, requests_of(&lender(), &network)),
        (revision.clone(), revisions_prefix().to_owned()),
        (revision, revisions_of_shard(Shard::of(&network.name, group))),
        (usage, usage_prefix().to_owned()),
    ] {
        crate::txn::validate_prefix("test store", &prefix).unwrap();
        assert!(key.starts_with(&prefix), "{key} {prefix}");
    }
}

#[test]
fn keys_parse_back() {
    let block_ = block_at("0-4096-6");
    let group = Group::of(&block_);
    assert_eq!(network_of(&network(&red().name)), Some(red().name));
    assert_eq!(node_of(&node(&lender())), Some(lender()));
    assert_eq!(alive_of(&alive(&lender())), Some(lender()));
    assert_eq!(block_of(&block(&red(), &block_)), Some((red(), block_)));
    for address in [V4, "fd00:9::5".parse().unwrap()] {
        let key = endpoint(&red(), &block_, address);
        assert_eq!(endpoint_of(&key), Some((red(), block_, address)));
    }
    let id = StickyId::of("web-0");
    assert_eq!(sticky_of(&sticky(&red(), &block_, id)), Some((red(), block_, id)));
    let loan = LoanId::new(7);
    assert_eq!(request_of(&request(&lender(), &red(), loan)), Some((lender(), red(), loan)));
    let moving = move_request(&lender(), &red(), &block_);
    assert_eq!(move_request_of(&moving), Some((lender(), red(), block_)));
    assert_eq!(
        request_of(&moving),
        None,
        "it is no request for a loan, and older versions see none"
    );
    assert_eq!(move_request_of(&request(&lender(), &red(), loan)), None);
    assert_eq!(usage_of(&usage(&lender())), Some(lender()));
    assert_eq!(revision_of(&revision(&red().name, group)), Some((red().name, group)));
}

#[test]
fn contradictory_and_unusual_keys_parse_to_none() {
    for bad in [
        // The group of this block is 0-1.
        "blocks/red@0badcafe/0-0/0-4096-6",
        "blocks/red@0badcafe/1-1/0-4096-6",
        "blocks/red@0badcafe/0-1/0-04096-6",
        "blocks/red@0badcafe/0-01/0-4096-6",
        "blocks/red@0badcafe/0-1/+0-4096-6",
        "blocks/red@0badcafe/0-4096-6",
        "blocks/red@0badcafe/0-1/0-4096-6/x",
        "blocks/red@0badcafe/0-1/whatever",
        "endpoints/red@0badcafe/0-1/0-4096-6/10.9.16.5",
    ] {
        assert_eq!(block_of(bad), None, "{bad}");
    }
    for bad in [
        "endpoints/red@0badcafe/0-2/0-4096-6/10.9.16.5",
        "endpoints/red@0badcafe/0-1/0-4096-6/fd00:0::1",
        "endpoints/red@0badcafe/0-1/0-4096-6/",
        "endpoints/-/0-1/0-4096-6/10.9.16.5",
    ] {
        assert_eq!(endpoint_of(bad), None, "{bad}");
    }
    let good = Shard::of(&red().name, "0-1".parse().unwrap());
    for shard in Shard::all().filter(|shard| *shard != good) {
        assert_eq!(revision_of(&format!("revisions/{shard}/red/0-1")), None);
    }
    assert_eq!(node_of("nodes/a/b"), None);
    assert_eq!(node_of("alive/a"), None);
    assert_eq!(request_of("requests/a/red/7"), None);
    assert_eq!(sticky_of("sticky/red@0badcafe/0-4096-6/WEB"), None);
}
