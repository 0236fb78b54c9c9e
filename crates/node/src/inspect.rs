//! Looking at what is: how much of a network is in use, and where the cluster store and this node's
//! files differ.
//!
//! Store and files are never read at one moment, so a single look can find a difference that is only
//! a change under way. Who reports differences looks twice; see [`Difference::is_again`].

mod compare;
pub mod usage;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_blocks::claim::Target;
use weft_blocks::ledger::{Away, Counts, Want};
use weft_blocks::{Holder, Ledger, LedgerError, Reservation, Sandbox};
use weft_model::{Block, ContainerId, IfName, LoanId, Network, NetworkName, NodeName};
use weft_store::{keys, typed};

use crate::loans::{Requested, View};
use crate::{Cluster, NodeError, claims, lending, loans, lock, networks};

/// How long to wait for the lock of a ledger.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// How often to read what others are changing meanwhile.
const TRIES: usize = 5;

/// What kind of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The node has a network that the store does not know.
    NetworkGone,
    /// The store gives this node a block that the ledger lacks.
    BlockNotEntered,
    /// The ledger has a block that the store does not give to this node.
    BlockNotOwned,
    /// A file of the ledger cannot be read.
    DamagedFile,
    /// A reservation cannot be read.
    DamagedReservation,
    /// A reservation's container is gone.
    SandboxGone,
    /// An address is used by a container that has no reservation of it.
    Unreserved,
    /// A container is not connected to the network's bridge.
    Disconnected,
    /// An address is in use here and belongs to another node.
    Stranded,
    /// Two reservations hold one address.
    HeldTwice,
    /// A borrowed address of whose loan the store knows nothing.
    LoanUnknown,
    /// The store says that an address lives here, and nobody holds it.
    EndpointUnused,
    /// An address of an own block lives on another node, and is not set aside.
    NotSetAside,
    /// An address is set aside for another node, and does not live there.
    LentToNobody,
    /// The index counts other addresses as held than there are reservations.
    Index,
    /// The network's devices are not as they were made.
    Devices,
}

/// What would put a difference right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Nothing that can be done without an administrator's judgement.
    None,
    /// Enter the block.
    Adopt(Block),
    /// Take the blocks that are nobody's again, strike out those that are others'.
    Verify,
    /// Release this very reservation.
    Release(Box<Reservation>),
    /// Release the damaged reservation of this holder.
    Discard(Holder),
    /// Give back what is borrowed for nothing.
    Tidy,
    /// Take back what is lent to nobody.
    Reclaim,
    /// Set the address aside.
    SetAside(Block, Away),
    /// Make the index anew.
    Reindex,
    /// Make the devices anew.
    Repair,
}

/// One difference between what should be and what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// In which network.
    pub network: NetworkName,
    /// Of what kind.
    pub kind: Kind,
    /// Which addresses it is about, where it is about single ones.
    pub addresses: Vec<IpAddr>,
    /// What is wrong, in words.
    pub what: String,
    /// What to do about it, in words.
    pub remedy: String,
    /// Whether it may well be as it should.
    pub is_note: bool,
    /// What `--fix` does about it.
    #[serde(skip)]
    pub fix: Fix,
}

impl Difference {
    /// Whether `other`, from another look, is about the same.
    pub fn is_again(&self, other: &Self) -> bool {
        let about = |d: &Self| (d.network.clone(), d.kind, d.addresses.clone(), d.what.clone());
        about(self) == about(other)
    }
}

/// A reservation file that cannot be read, and what can still be told from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// Whose it is, by its name.
    pub holder: Option<Holder>,
    /// The addresses, if the damage spared them.
    pub addresses: Vec<IpAddr>,
    /// The sandbox, if the damage spared it.
    pub sandbox: Option<Sandbox>,
}

impl Damaged {
    fn of(path: PathBuf, content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        let netns = field::<PathBuf>(&text, "netns");
        let identity = field::<(u64, u64)>(&text, "identity");
        let sandbox = identity
            .map(|identity| Sandbox { netns: netns.unwrap_or_default(), identity: Some(identity) });
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Self {
            holder: holder_of(name),
            addresses: field(&text, "addresses").unwrap_or_default(),
            sandbox,
            path,
        }
    }
}

/// The value of the first field called `name`, if it is whole.
fn field<T: DeserializeOwned>(text: &str, name: &str) -> Option<T> {
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    serde_json::Deserializer::from_str(rest).into_iter().next()?.ok()
}

/// The holder that a reservation's file is named for. Names that were shortened do not tell.
fn holder_of(name: &str) -> Option<Holder> {
    if name == "@node" {
        return Some(Holder::Node);
    }
    let (container_id, ifname) = name.split_once('@')?;
    Some(Holder::Attachment {
        container_id: ContainerId::new(container_id).ok()?,
        ifname: IfName::new(ifname).ok()?,
    })
}

/// The reservations of one network on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Those that can be read.
    pub reservations: Vec<Reservation>,
    /// The others.
    pub damaged: Vec<Damaged>,
}

impl Files {
    /// Reads all reservations of the ledger.
    pub fn read(ledger: &Ledger) -> Result<Self, NodeError> {
        let dir = ledger.dir().reservations();
        let mut files = Self::default();
        for entry in std::fs::read_dir(&dir).map_err(NodeError::io("read", &dir))? {
            let path = entry.map_err(NodeError::io("read", &dir))?.path();
            let content = match std::fs::read(&path) {
                Ok(content) => content,
                // Released meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(NodeError::io("read", path)(error)),
            };
            match serde_json::from_slice(&content) {
                Ok(reservation) => files.reservations.push(reservation),
                Err(_) => files.damaged.push(Damaged::of(path, &content)),
            }
        }
        files.reservations.sort_by_key(|r| (r.pool, r.host, r.holder.clone()));
        files.damaged.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

/// What this node's files and the store say of one network.
#[derive(Debug, Clone)]
pub struct Books {
    /// This node.
    pub node: NodeName,
    /// The network, as this node has it.
    pub network: Network,
    /// The ledger's blocks, each with how many of its addresses are free and held.
    pub blocks: Vec<(Block, Counts)>,
    /// The ledger's reservations.
    pub files: Files,
    /// Those of them whose addresses are not this node's to use.
    pub stranded: Vec<Reservation>,
    /// Loans that are on their way back.
    pub returns: Vec<LoanId>,
    /// What could not be read of the ledger, in words.
    pub damage: Vec<String>,
    /// What the store says.
    pub view: View,
}

impl Books {
    /// Reads what files and store say of `network`.
    pub async fn read(
        cluster: &Cluster,
        data_dir: &Path,
        network: &Network,
    ) -> Result<Self, NodeError> {
        let mut books = Self {
            node: cluster.node().clone(),
            network: network.clone(),
            blocks: vec![],
            files: Files::default(),
            stranded: vec![],
            returns: vec![],
            damage: vec![],
            view: View::default(),
        };
        // A look leaves no directories behind where there is no ledger.
        if let Some(cached) = networks::cached(data_dir, network.name())? {
            let ledger = Ledger::open(data_dir, cached)?;
            for _ in 0..TRIES {
                books.damage.clear();
                books.blocks = books.spared(ledger.usage())?;
                books.files = Files::read(&ledger)?;
                let again = books.spared(ledger.usage())?;
                if books.blocks == again {
                    break;
                }
            }
            books.damage.dedup();
            if books.damage.is_empty() {
                books.stranded = books.spared(ledger.stranded())?;
            }
            books.returns = ledger.returns()?;
        }
        books.view = view(cluster, network.name()).await?;
        Ok(books)
    }

    /// What was read, or nothing where a file is damaged.
    fn spared<T: Default>(&mut self, read: Result<T, LedgerError>) -> Result<T, NodeError> {
        match read {
            Err(error @ LedgerError::Damaged { .. }) => {
                self.damage.push(error.to_string());
                Ok(T::default())
            }
            read => Ok(read?),
        }
    }
}

/// The addresses of a reservation, in words.
pub fn shown(reservation: &Reservation) -> String {
    let addresses: Vec<String> = reservation.addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        return format!("host {} of pool {}", reservation.host, reservation.pool);
    }
    addresses.join(" and ")
}

/// What the store says of a network now.
pub async fn view(cluster: &Cluster, name: &NetworkName) -> Result<View, NodeError> {
    let mut view = View { blocks: cluster.blocks(name).await?, ..View::default() };
    for entry in cluster.store().list(&keys::endpoints_prefix(name)).await?.entries {
        if let Some(address) = keys::endpoint_of(&entry.key) {
            view.endpoints.insert(address, (typed::decode(&entry)?, entry.revision));
        }
    }
    for entry in cluster.store().list(&keys::requests_prefix(name)).await?.entries {
        if let Some(loan) = keys::request_of(&entry.key) {
            let requested = Requested { record: typed::decode(&entry)?, revision: entry.revision };
            view.requests.insert(loan, requested);
        }
    }
    Ok(view)
}

/// Does what `fix` says about files and store; devices are the host's.
pub async fn apply(
    cluster: &Cluster,
    data_dir: &Path,
    network: &Network,
    fix: &Fix,
) -> Result<(), NodeError> {
    let network = match networks::cached(data_dir, network.name())? {
        Some(cached) => cached,
        None => {
            networks::cache(data_dir, network)?;
            network.clone()
        }
    };
    let name = network.name().clone();
    let ledger = Ledger::open(data_dir, network)?;
    match fix {
        Fix::None | Fix::Repair => {}
        Fix::Adopt(block) => {
            let turn = claims::take_turn(cluster, &ledger).await?;
            // By now it may have been given back, and is not to be claimed again.
            let record = cluster.block_record(&name, block).await?;
            if record.is_some_and(|(record, _)| record.node == *cluster.node()) {
                claims::claim(cluster, ledger, Target::Exactly(*block), &turn).await?;
            }
        }
        Fix::Verify => {
            let turn = claims::take_turn(cluster, &ledger).await?;
            claims::verify(cluster, ledger, &turn).await?;
        }
        Fix::Release(reservation) => {
            // The attachment may have been made anew meanwhile.
            if ledger.reservation(&reservation.holder)?.as_ref() == Some(&**reservation) {
                ledger.release(&reservation.holder)?;
            }
        }
        Fix::Discard(holder) => {
            if matches!(ledger.reservation(holder), Err(LedgerError::Damaged { .. })) {
                ledger.release(holder)?;
            }
        }
        Fix::Tidy => {
            loans::tidy(cluster, &ledger, &view(cluster, &name).await?).await?;
        }
        Fix::Reclaim => lending::reclaim(cluster, &ledger, &view(cluster, &name).await?).await?,
        Fix::SetAside(block, away) => {
            let want = Want::Exactly(block.pool(), away.host);
            match away.loan {
                // Does nothing to an address that a container has got meanwhile.
                Some(loan) => ledger.lend(want, &away.node, loan, None).map(drop)?,
                None if ledger.owns(block) => {
                    ledger.add_used_block(block, std::slice::from_ref(away), &[])?;
                }
                None => {}
            }
        }
        Fix::Reindex => {
            let path = ledger.dir().root().join("lock");
            let lock = lock::wait(cluster.surroundings(), &path, PATIENCE).await?;
            if lock.is_none() {
                return Err(NodeError::Ledger(LedgerError::Locked { path }));
            }
            let index = ledger.dir().root().join("index");
            match std::fs::remove_file(&index) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NodeError::io("remove", index)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
