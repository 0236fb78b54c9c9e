//! DNS servers for tests: one that misbehaves on demand, and Consul's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use weft_resolve::Resolver;

/// Behaviour of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Never answers.
    Silent,
    /// Answers over UDP are empty and marked as truncated.
    TooLongForUdp,
    /// A forged answer, with another id, comes before the real one.
    ForgedFirst,
    /// Every answer is SERVFAIL.
    Broken,
    /// Questions for IPv6 addresses stay without an answer.
    KnowsNoAaaa,
}

/// A DNS server on a port of its own, in the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Questions that came, of either kind and over either transport.
    pub(crate) questions: Arc<AtomicUsize>,
    names: Arc<Mutex<Vec<String>>>,
}

/// Name and addresses of a host. A host with an alias is reached by a CNAME.
pub(crate) const HOSTS: [(&str, &[&str]); 3] = [
    ("consul.example", &["198.18.0.9", "fd00::9"]),
    ("four.example", &["198.18.0.4"]),
    ("target.example", &["198.18.0.5"]),
];
const ALIAS: (&str, &str) = ("alias.example", "target.example");

impl Server {
    pub(crate) async fn start(manner: Manner) -> Self {
        // A port that is free for UDP may be taken for TCP.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let names = Arc::new(Mutex::new(vec![]));
        let note = {
            let (questions, names) = (Arc::clone(&questions), Arc::clone(&names));
            move |question: &[u8]| {
                let packet = Packet::parse(question).unwrap();
                questions.fetch_add(1, Ordering::Relaxed);
                names.lock().unwrap().push(packet.questions[0].qname.to_string());
            }
        };
        let note_tcp = note.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                note(&buffer[..length]);
                for reply in udp_replies(&buffer[..length], manner) {
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                note_tcp(&question);
                let reply = reply(&question);
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        Self { address, questions, names }
    }

    /// Names that were asked for, each once, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.names.lock().unwrap().clone();
        names.dedup();
        names
    }
}

fn udp_replies(question: &[u8], manner: Manner) -> Vec<Vec<u8>> {
    let asked = Packet::parse(question).unwrap();
    let six = asked.questions[0].qtype == QTYPE::TYPE(TYPE::AAAA);
    match manner {
        Manner::Silent => vec![],
        Manner::KnowsNoAaaa if six => vec![],
        Manner::Plain | Manner::KnowsNoAaaa => vec![reply(question)],
        Manner::TooLongForUdp => {
            let mut short = asked.into_reply();
            short.set_flags(PacketFlag::TRUNCATION);
            vec![short.build_bytes_vec().unwrap()]
        }
        Manner::ForgedFirst => {
            let mut forged = Packet::parse(question).unwrap().into_reply();
            forged.set_id(asked.id().wrapping_add(1));
            let name = asked.questions[0].qname.clone();
            let data = RData::A(A::from(Ipv4Addr::new(198, 18, 66, 66)));
            forged.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
            vec![forged.build_bytes_vec().unwrap(), reply(question)]
        }
        Manner::Broken => {
            let mut broken = asked.into_reply();
            *broken.rcode_mut() = RCODE::ServerFailure;
            vec![broken.build_bytes_vec().unwrap()]
        }
    }
}

/// The honest answer.
fn reply(question: &[u8]) -> Vec<u8> {
    let packet = Packet::parse(question).unwrap();
    let asked = packet.questions[0].qname.to_string();
    let kind = packet.questions[0].qtype;
    let mut reply = Packet::parse(question).unwrap().into_reply();
    let mut host = asked.as_str();
    if host == ALIAS.0 {
        host = ALIAS.1;
        let data = RData::CNAME(CNAME(Name::new(ALIAS.1).unwrap()));
        let name = Name::new(ALIAS.0).unwrap();
        reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
    }
    match HOSTS.iter().find(|(name, _)| *name == host) {
        None => *reply.rcode_mut() = RCODE::NameError,
        Some((name, addresses)) => {
            for address in *addresses {
                let (of, data) = match address.parse().unwrap() {
                    IpAddr::V4(ip) => (TYPE::A, RData::A(A::from(ip))),
                    IpAddr::V6(ip) => (TYPE::AAAA, RData::AAAA(AAAA::from(ip))),
                };
                if kind == QTYPE::TYPE(of) {
                    let name = Name::new(name).unwrap();
                    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
                }
            }
        }
    }
    reply.build_bytes_vec_compressed().unwrap()
}

/// A resolver with files of its own.
pub(crate) fn resolver(hosts: &str, resolv_conf: &str, servers: &[&Server]) -> Resolver {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("hosts"), dir.path().join("resolv.conf")];
    std::fs::write(&paths[0], hosts).unwrap();
    std::fs::write(&paths[1], resolv_conf).unwrap();
    let servers = servers.iter().map(|server| server.address).collect();
    Resolver::from_files("test", &paths[0], &paths[1]).unwrap().with_servers(servers)
}

/// A Consul agent that answers DNS on loopback. It ends with this value.
pub(crate) struct Consul {
    pub(crate) dns: SocketAddr,
    process: Child,
    _dir: TempDir,
}

impl Consul {
    pub(crate) fn start() -> Self {
        let program =
            std::env::var_os("WEFT_TEST_CONSUL").map_or_else(|| "consul".into(), PathBuf::from);
        let dir = tempfile::tempdir().unwrap();
        let [dns, server, serf] = std::array::from_fn(|_| free_port());
        let ports = format!(
            "ports {{ dns = {dns} server = {server} serf_lan = {serf} serf_wan = -1 \
             http = -1 grpc = -1 }}"
        );
        let process = Command::new(program)
            .args(["agent", "-server", "-bootstrap", "-node=solo", "-bind=127.0.0.1"])
            .args(["-client=127.0.0.1", "-data-dir"])
            .arg(dir.path())
            .args(["-hcl", &ports])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { dns: (Ipv4Addr::LOCALHOST, dns).into(), process, _dir: dir }
    }

    /// Asks again until the agent, which starts, knows the name.
    pub(crate) async fn lookup(&self, host: &str) -> Vec<IpAddr> {
        let resolver = resolver("", "search service.consul\n", &[]).with_servers(vec![self.dns]);
        let started = Instant::now();
        loop {
            match resolver.lookup(host).await {
                Ok(addresses) => return addresses,
                Err(error) => {
                    assert!(started.elapsed() < Duration::from_secs(30), "{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that was free for TCP and UDP a moment ago.
fn free_port() -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if std::net::UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}
