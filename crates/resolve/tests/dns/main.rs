//! Host names resolved against real servers.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod ground;

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ground::{Consul, Manner, Server, resolver};
use weft_resolve::{ResolveError, Resolver};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const BOTH: [&str; 2] = ["198.18.0.9", "fd00::9"];

#[tokio::test]
async fn address_literal_needs_no_server() {
    let server = Server::start(Manner::Plain).await;
    let resolver = resolver("198.18.0.1 198.18.0.9\n", "", &[&server]);
    assert_eq!(resolver.lookup("198.18.0.9").await.unwrap(), ips(&["198.18.0.9"]));
    assert_eq!(resolver.lookup("fd00::9").await.unwrap(), ips(&["fd00::9"]));
    assert_eq!(weft_resolve::lookup("198.18.0.9").await.unwrap(), ips(&["198.18.0.9"]));
    assert_eq!(server.questions.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn hosts_file_wins_over_dns() {
    let server = Server::start(Manner::Plain).await;
    let resolver = resolver("198.18.0.77 consul.example\n", "", &[&server]);
    assert_eq!(resolver.lookup("Consul.Example.").await.unwrap(), ips(&["198.18.0.77"]));
    assert_eq!(server.questions.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn localhost_needs_neither_file_nor_server() {
    let none = Path::new("/nonexistent/file");
    let resolver = Resolver::from_files("localhost", none, none).unwrap();
    for host in ["localhost", "consul.LOCALHOST."] {
        assert_eq!(resolver.lookup(host).await.unwrap(), ips(&["127.0.0.1", "::1"]));
    }
}

#[tokio::test]
async fn dns_gives_addresses_of_both_families() {
    let server = Server::start(Manner::Plain).await;
    let resolver = resolver("", "", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&BOTH));
    assert_eq!(resolver.lookup("four.example").await.unwrap(), ips(&["198.18.0.4"]));
    assert_eq!(resolver.lookup("alias.example").await.unwrap(), ips(&["198.18.0.5"]));
}

#[tokio::test]
async fn option_no_aaaa_asks_for_ipv4_only() {
    let server = Server::start(Manner::Plain).await;
    let resolver = resolver("", "options no-aaaa\n", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&["198.18.0.9"]));
    assert_eq!(server.questions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn search_domains_complete_short_names() {
    let server = Server::start(Manner::Plain).await;
    let resolver = resolver("", "search elsewhere.example example\n", &[&server]);
    assert_eq!(resolver.lookup("Consul").await.unwrap(), ips(&BOTH));
    assert_eq!(server.names(), ["consul.elsewhere.example", "consul.example"]);
}

#[tokio::test]
async fn truncated_answer_is_fetched_over_tcp() {
    let server = Server::start(Manner::TooLongForUdp).await;
    let resolver = resolver("", "", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&BOTH));
    assert_eq!(server.questions.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn option_use_vc_asks_over_tcp_only() {
    let server = Server::start(Manner::Silent).await;
    let resolver = resolver("", "options use-vc\n", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&BOTH));
}

#[tokio::test]
async fn forged_answer_with_another_id_is_ignored() {
    let server = Server::start(Manner::ForgedFirst).await;
    let resolver = resolver("", "", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&BOTH));
}

#[tokio::test]
async fn next_server_answers_for_a_silent_a_broken_and_a_dead_one() {
    let silent = Server::start(Manner::Silent).await;
    let broken = Server::start(Manner::Broken).await;
    let plain = Server::start(Manner::Plain).await;
    let mut servers = vec![silent.address, broken.address];
    // A port without a server: the kernel reports it at once.
    servers.push(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    servers.push(plain.address);
    let resolver = resolver("", "", &[]).with_servers(servers);
    let started = Instant::now();
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&BOTH));
    // Only the silent one costs time; a connection to the store may take 1 s in all.
    assert!(started.elapsed().as_millis() < 900, "{:?}", started.elapsed());
}

#[tokio::test]
async fn server_that_ignores_aaaa_still_gives_ipv4() {
    let server = Server::start(Manner::KnowsNoAaaa).await;
    let resolver = resolver("", "", &[&server]);
    assert_eq!(resolver.lookup("consul.example").await.unwrap(), ips(&["198.18.0.9"]));
}

#[tokio::test]
async fn unknown_host_is_told_apart_from_a_dead_server() {
    let plain = Server::start(Manner::Plain).await;
    let unknown = resolver("", "search example\n", &[&plain]).lookup("consol").await.unwrap_err();
    assert!(
        matches!(&unknown, ResolveError::NotFound { names, .. }
        if *names == ["consol.example", "consol"]),
        "{unknown}"
    );

    let broken = Server::start(Manner::Broken).await;
    let error = resolver("", "", &[&broken]).lookup("consul.example").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ResolveError::NoAnswer { .. }), "{text}");
    assert!(text.contains(&broken.address.to_string()) && text.contains("ServerFailure"), "{text}");

    let error = resolver("", "", &[]).lookup("bücher.example").await.unwrap_err();
    assert!(matches!(error, ResolveError::InvalidName { .. }), "{error}");
}

#[tokio::test]
async fn unreadable_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Resolver::from_files("consul", dir.path(), Path::new("/nonexistent")).unwrap_err();
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
#[ignore = "needs Consul"]
async fn consul_dns_gives_its_servers() {
    let consul = Consul::start();
    assert_eq!(consul.lookup("consul").await, ips(&["127.0.0.1"]));
    assert_eq!(consul.lookup("solo.node.consul").await, ips(&["127.0.0.1"]));
}
