//! Records of one network, as this node's files and the cluster store have them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use weft_allocator::AllocatorError;
use weft_cluster::view::NetworkRequests;
use weft_cluster::{Cluster, NetworkView, networks};
use weft_files::{FileError, Inode};
use weft_ledger::ledger::Counts;
use weft_ledger::{Holder, HolderKey, Ledger, Reservation, Sandbox};
use weft_model::{Block, LoanId, Network, NodeName};

/// Attempts to read what others are changing meanwhile.
const TRIES: usize = 5;

/// A reservation file that cannot be read, and what can still be told from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// Its holder, by its name.
    pub holder: Option<Holder>,
    /// The addresses, if the damage spared them.
    pub addresses: Vec<IpAddr>,
    /// The sandbox, if the damage spared it.
    pub sandbox: Option<Sandbox>,
}

impl Damaged {
    pub(crate) fn of(path: PathBuf, content: &[u8]) -> Self {
        let text = String::from_utf8_lossy(content);
        let netns = field::<PathBuf>(&text, "netns");
        let identity = field::<Inode>(&text, "identity");
        let sandbox = identity
            .map(|identity| Sandbox { netns: netns.unwrap_or_default(), identity: Some(identity) });
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Self {
            holder: HolderKey::parse(name).and_then(HolderKey::holder),
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
    pub fn read(ledger: &Ledger) -> Result<Self, AllocatorError> {
        let dir = ledger.dir().reservations();
        let mut files = Self::default();
        for name in weft_files::names_in(&dir)? {
            let path = dir.join(name);
            // One that is absent was released meanwhile.
            let Some(content) = weft_files::read(&path)? else { continue };
            match weft_files::json::parse(&path, &content) {
                Ok(reservation) => files.reservations.push(reservation),
                Err(_) => files.damaged.push(Damaged::of(path, &content)),
            }
        }
        files.reservations.sort_by_key(|r| (r.pool, r.host, r.holder.clone()));
        files.damaged.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

/// This node's files and the store's entries of one network.
#[derive(Debug, Clone)]
pub struct Records {
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
    /// The parts of the ledger that could not be read, in words.
    pub damage: Vec<String>,
    /// The store's entries.
    pub view: NetworkView,
    /// Requests to this node for loans.
    pub requests: NetworkRequests,
}

impl Records {
    /// Reads what files and store have of `network`.
    pub async fn read(
        cluster: &Cluster,
        data_dir: &Path,
        network: &Network,
    ) -> Result<Self, AllocatorError> {
        cluster.check_name()?;
        let mut records = Self {
            node: cluster.node().clone(),
            network: network.clone(),
            blocks: vec![],
            files: Files::default(),
            stranded: vec![],
            returns: vec![],
            damage: vec![],
            view: NetworkView::default(),
            requests: NetworkRequests::new(),
        };
        // A pass leaves no directories behind if there is no ledger.
        if let Some(cached) = networks::cached(data_dir, network.name())? {
            let ledger = Ledger::open(data_dir, cached)?;
            for _ in 0..TRIES {
                records.damage.clear();
                records.blocks = records.noting_damage(ledger.usage())?;
                records.files = Files::read(&ledger)?;
                let again = records.noting_damage(ledger.usage())?;
                if records.blocks == again {
                    break;
                }
            }
            records.damage.dedup();
            if records.damage.is_empty() {
                records.stranded = records.noting_damage(ledger.stranded())?;
            }
            records.returns = ledger.returns()?;
        }
        records.view = cluster.network_view(&network.id()).await?;
        records.requests = cluster.requests(&network.id()).await?;
        Ok(records)
    }

    /// The value that was read; the default if a file is damaged, which is noted.
    fn noting_damage<T: Default>(
        &mut self,
        read: Result<T, FileError>,
    ) -> Result<T, AllocatorError> {
        match read {
            Err(error @ FileError::Damaged { .. }) => {
                self.damage.push(error.to_string());
                Ok(T::default())
            }
            read => Ok(read?),
        }
    }
}
