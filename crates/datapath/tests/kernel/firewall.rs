//! The firewall table.

use weft_datapath::firewall::{ensure, remove};
use weft_model::network::{Masquerade, Mode};
use weft_model::pool::{FamilyRecord, PoolRecord};
use weft_model::{Network, NetworkName, NetworkSpec, Vni};

use crate::ground::{on_a_host, sh, try_sh};

fn network(name: &str, vni: u32, subnet: &str, masquerade: Masquerade) -> Network {
    let ipv4 = FamilyRecord::new(subnet.parse().unwrap());
    let pool = PoolRecord { ipv4: Some(ipv4), ..PoolRecord::default() };
    let spec = NetworkSpec {
        mode: Some(Mode::Gateway),
        masquerade: Some(masquerade),
        pools: vec![pool],
        ..NetworkSpec::default()
    };
    spec.to_network(&NetworkName::new(name).unwrap(), Vni::new(vni).unwrap()).unwrap()
}

fn red() -> Network {
    network("red", 4242, "10.9.0.0/16", Masquerade::On)
}

fn blue() -> Network {
    network("blue", 4243, "10.8.0.0/24", Masquerade::Off)
}

fn ruleset() -> String {
    sh("nft list ruleset")
}

#[test]
#[ignore = "needs root"]
fn rules_of_a_network_are_set_once_however_often_it_is_asked_for() {
    on_a_host(async |_| {
        ensure(&red()).unwrap();
        let once = ruleset();
        for part in [
            "table inet weft",
            "ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16",
            "masquerade fully-random",
            r#"oifname != "wb4242" oifname @bridges drop"#,
        ] {
            assert!(once.contains(part), "{part} is missing in:\n{once}");
        }
        ensure(&red()).unwrap();
        ensure(&red()).unwrap();
        assert_eq!(ruleset(), once);
        assert_eq!(once.matches("table ").count(), 1, "{once}");
    });
}

#[test]
#[ignore = "needs root"]
fn networks_come_and_go_without_a_trace_in_each_other() {
    on_a_host(async |_| {
        ensure(&red()).unwrap();
        let red_alone = ruleset();
        ensure(&blue()).unwrap();
        let both = ruleset();
        assert!(both.contains("wb4243") && both.contains("wb4242"), "{both}");
        assert_eq!(both.matches("masquerade fully-random").count(), 1, "blue has none:\n{both}");
        remove(&blue()).unwrap();
        assert_eq!(ruleset(), red_alone);
        remove(&blue()).unwrap();
        assert_eq!(ruleset(), red_alone);
        remove(&red()).unwrap();
        let none = ruleset();
        assert!(!none.contains("wb42") && !none.contains("10.9."), "{none}");
    });
}

#[test]
#[ignore = "needs root"]
fn what_somebody_deleted_is_there_again_and_other_tables_stay() {
    on_a_host(async |_| {
        sh("nft add table inet theirs; nft add chain inet theirs keep");
        let theirs = sh("nft list table inet theirs");
        ensure(&red()).unwrap();
        let good = ruleset();
        for damage in [
            "nft flush chain inet weft isolate-wb4242",
            "nft flush chain inet weft postrouting",
            "nft delete element inet weft bridges '{ wb4242 }'",
            "nft add rule inet weft masquerade-wb4242 accept",
        ] {
            sh(damage);
            assert_ne!(ruleset(), good, "{damage}");
            ensure(&red()).unwrap();
            assert_eq!(ruleset(), good, "{damage}");
        }
        sh("nft delete table inet weft");
        ensure(&red()).unwrap();
        assert_eq!(sh("nft list table inet theirs"), theirs);
        assert!(try_sh("nft list table inet weft").is_ok());
    });
}
