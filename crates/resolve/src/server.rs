//! One question to one DNS server (RFC 1035), over UDP, and over TCP if the answer is too long.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use resolv_conf::Config;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// More than a server may send to a client without EDNS (RFC 1035: 512).
const UDP_SIZE: usize = 4096;

/// Answer of a server about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its addresses, IPv4 first; none if the name has none or does not exist.
    Addresses(Vec<IpAddr>),
    /// The server cannot tell, or did not answer in time.
    Failed(String),
}

/// Asks `server` for both kinds of addresses of `name` at the same time. `wait` is the limit for
/// each transport.
pub(crate) async fn ask(server: SocketAddr, name: &str, wait: Duration, config: &Config) -> Answer {
    let kind = |kind| ask_kind(server, name, kind, wait, config.use_vc);
    if config.no_aaaa {
        return kind(TYPE::A).await;
    }
    let (four, six) = tokio::join!(kind(TYPE::A), kind(TYPE::AAAA));
    match (four, six) {
        (Answer::Addresses(mut addresses), Answer::Addresses(more)) => {
            addresses.extend(more);
            Answer::Addresses(addresses)
        }
        // Some servers know only one of the two questions and do not answer the other.
        (Answer::Addresses(some), Answer::Failed(_))
        | (Answer::Failed(_), Answer::Addresses(some))
            if !some.is_empty() =>
        {
            Answer::Addresses(some)
        }
        (Answer::Failed(cause), _) | (_, Answer::Failed(cause)) => Answer::Failed(cause),
    }
}

async fn ask_kind(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    wait: Duration,
    tcp_only: bool,
) -> Answer {
    let question = match AddressQuestion::new(name, kind) {
        Ok(question) => question,
        Err(cause) => return Answer::Failed(cause),
    };
    if !tcp_only {
        match within(wait, over_udp(server, &question)).await {
            Ok(Some(answer)) => return answer,
            // Truncated.
            Ok(None) => {}
            Err(cause) => return Answer::Failed(cause),
        }
    }
    within(wait, over_tcp(server, &question)).await.unwrap_or_else(Answer::Failed)
}

/// Runs an exchange, but not longer than `wait`.
async fn within<T>(
    wait: Duration,
    exchange: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    match timeout(wait, exchange).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", wait.as_millis())),
    }
}

/// Returns `None` if the answer did not fit.
async fn over_udp(
    server: SocketAddr,
    question: &AddressQuestion<'_>,
) -> std::io::Result<Option<Answer>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of the kernel's random choice, and connected, so that only the server's packets
    // arrive.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.packet).await?;
    let mut buffer = vec![0; UDP_SIZE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match question.read(&buffer[..length]) {
            Reply::Answer(answer) => return Ok(Some(answer)),
            Reply::Truncated => return Ok(None),
            // A forged answer must not end the wait for the real one.
            Reply::Unrelated => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &AddressQuestion<'_>) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.packet.len()).map_err(std::io::Error::other)?;
    // Length and message in one segment: RFC 7766, section 8.
    let message = [&length.to_be_bytes(), question.packet.as_slice()].concat();
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    Ok(match question.read(&buffer) {
        Reply::Answer(answer) => answer,
        Reply::Truncated => Answer::Failed("truncated answer over TCP".into()),
        Reply::Unrelated => Answer::Failed("answer to another question".into()),
    })
}

/// A question for one kind of addresses.
struct AddressQuestion<'a> {
    id: u16,
    name: Name<'a>,
    kind: TYPE,
    packet: Vec<u8>,
}

/// Meaning of a packet from the server.
enum Reply {
    Answer(Answer),
    Truncated,
    /// No reply to this question.
    Unrelated,
}

impl<'a> AddressQuestion<'a> {
    fn new(name: &'a str, kind: TYPE) -> Result<Self, String> {
        let id = fastrand::u16(..);
        let name = Name::new(name).map_err(|error| error.to_string())?;
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let question = Question::new(name.clone(), kind.into(), CLASS::IN.into(), false);
        packet.questions.push(question);
        let packet = packet.build_bytes_vec().map_err(|error| error.to_string())?;
        Ok(Self { id, name, kind, packet })
    }

    fn read(&self, bytes: &[u8]) -> Reply {
        let Ok(packet) = Packet::parse(bytes) else { return Reply::Unrelated };
        let same_question = match packet.questions.as_slice() {
            [question] => question.qname == self.name && question.qtype == self.kind.into(),
            _ => false,
        };
        if packet.id() != self.id || !packet.has_flags(PacketFlag::RESPONSE) || !same_question {
            return Reply::Unrelated;
        }
        if packet.has_flags(PacketFlag::TRUNCATION) {
            return Reply::Truncated;
        }
        Reply::Answer(match packet.rcode() {
            RCODE::NoError => Answer::Addresses(self.addresses(&packet)),
            RCODE::NameError => Answer::Addresses(vec![]),
            code => Answer::Failed(format!("the server reports {code:?}")),
        })
    }

    /// Addresses in the answer. Those behind a CNAME have its target's name: the server, which was
    /// asked for recursion, put them there.
    fn addresses(&self, packet: &Packet<'_>) -> Vec<IpAddr> {
        let records = packet.answers.iter().filter(|record| record.class == CLASS::IN);
        let address = |data: &RData<'_>| match (self.kind, data) {
            (TYPE::A, RData::A(data)) => Some(Ipv4Addr::from(data.address).into()),
            (TYPE::AAAA, RData::AAAA(data)) => Some(Ipv6Addr::from(data.address).into()),
            _ => None,
        };
        records.filter_map(|record| address(&record.rdata)).collect()
    }
}
