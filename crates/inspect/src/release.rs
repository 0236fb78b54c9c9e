//! Freeing an address by hand.

use std::net::IpAddr;

use weft_allocator::AllocatorError;
use weft_allocator::liveness::Life;
use weft_allocator::release::{Reason, discard, free};
use weft_cluster::{ClusterError, networks};
use weft_files::FileError;
use weft_ledger::{Holder, Ledger};
use weft_model::{Network, NetworkName, NodeName};

use crate::containers::{Containers, host_end, links};
use weft_wiring::{Host, WiringError};

use crate::records::Files;

/// Choice to free an address whose container may be there, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// Do it.
    Yes,
}

/// Why an address is not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Something failed.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The address is none of the network's.
    #[error("address {address} lies in no subnet of network {network}")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
    },
    /// No reservation of it is on this node.
    #[error("address {address} of network {network} is not held by anybody on this node{hint}")]
    NotHeld {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// A place at which it may be held, in words.
        hint: String,
    },
    /// It is held on another node.
    #[error(
        "address {address} of network {network} lies in a block of node {owner}, and only that \
         node knows who holds it; run this command there"
    )]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// The block's owner.
        owner: NodeName,
    },
    /// It is lent.
    #[error(
        "address {address} of network {network} is lent to node {node}, and comes back when that \
         node has no use for it; run this command there"
    )]
    Lent {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// To whom.
        node: NodeName,
    },
    /// It is this host's own.
    #[error("address {address} of network {network} is this host's own, and kept with the network")]
    OwnAddress {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
    },
    /// Its holder got another reservation while it was looked at.
    #[error(
        "address {address} of network {network} was given back, or its holder {holder} was started \
         again, at this moment; nothing was freed: look again with `weftctl ipam check`"
    )]
    Changed {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// The container.
        holder: String,
    },
    /// The container is there.
    #[error(
        "address {address} of network {network} is held by {holder}, which {state}; delete that \
         container, or use --force if it does not use the address any more"
    )]
    InUse {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// The container.
        holder: String,
        /// Its state, in words.
        state: String,
    },
}

impl From<ClusterError> for ReleaseError {
    fn from(error: ClusterError) -> Self {
        Self::Wiring(error.into())
    }
}

impl From<FileError> for ReleaseError {
    fn from(error: FileError) -> Self {
        Self::Wiring(error.into())
    }
}

impl From<AllocatorError> for ReleaseError {
    fn from(error: AllocatorError) -> Self {
        Self::Wiring(error.into())
    }
}

/// An address that was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Its holder until now.
    pub holder: Holder,
    /// Judgement on that container.
    pub life: Life,
    /// The owner of the block, if the address was borrowed.
    pub lender: Option<NodeName>,
    /// For whom the address is kept from now on, if for anybody.
    pub kept: Option<Holder>,
}

/// Frees an address that is held on this node. Unless forced, only where its container is gone.
pub async fn release_address(
    host: &Host,
    name: &NetworkName,
    address: IpAddr,
    force: Force,
) -> Result<Vec<Released>, ReleaseError> {
    let data_dir = &host.config().data_dir;
    let Some(network) = networks::cached(data_dir, name)? else {
        let (network, _) = host.cluster().existing_network(name).await?;
        return Err(not_held(host, &network, address, None).await?);
    };
    let ledger = Ledger::open(data_dir, network.clone())?;
    let files = Files::read(&ledger)?;
    let containers = Containers::read(links(host).await?, &files);
    let (mut held, mut lent) = (vec![], None);
    for reservation in files.reservations.iter().filter(|r| r.addresses.contains(&address)) {
        match &reservation.holder {
            Holder::Lent { node, .. } => lent = Some(node.clone()),
            holder => {
                let lender = reservation.loan.as_ref().map(|loan| loan.lender.clone());
                held.push((holder.clone(), reservation.sandbox.as_ref(), lender));
            }
        }
    }
    for damaged in files.damaged.iter().filter(|d| d.addresses.contains(&address)) {
        if let Some(holder) = &damaged.holder {
            held.push((holder.clone(), damaged.sandbox.as_ref(), None));
        }
    }
    if held.is_empty() {
        if let Some(node) = lent {
            return Err(ReleaseError::Lent { address, network: name.clone(), node });
        }
        return Err(not_held(host, &network, address, Some(&ledger)).await?);
    }
    let mut released = vec![];
    for (holder, sandbox, lender) in held {
        let network = name.clone();
        if holder == Holder::Node {
            return Err(ReleaseError::OwnAddress { address, network });
        }
        let host_end = host_end(ledger.network(), &holder);
        let life = match holder {
            // There is no container.
            Holder::Kept { .. } => Life::Gone,
            _ => containers.life(sandbox, host_end.as_deref()),
        };
        if life != Life::Gone && force == Force::No {
            let state = match (life, sandbox) {
                (Life::Alive, Some(sandbox)) => {
                    format!("is alive (network namespace {})", sandbox.netns.display())
                }
                (Life::Alive, None) => "is alive".to_owned(),
                _ => "may be alive: its reservation does not tell".to_owned(),
            };
            let holder = holder.to_string();
            return Err(ReleaseError::InUse { address, network, holder, state });
        }
        released.push(Released { holder, life, lender, kept: None });
    }
    for one in &released {
        let freed = match files.reservations.iter().find(|held| held.holder == one.holder) {
            Some(reservation) => free(&ledger, reservation, Reason::Operator)?,
            // Its file is damaged: only the name tells.
            None => discard(&ledger, &one.holder, Reason::Operator)?,
        };
        if !freed {
            let (network, holder) = (name.clone(), one.holder.to_string());
            return Err(ReleaseError::Changed { address, network, holder });
        }
    }
    let kept = Files::read(&ledger)?.reservations.into_iter().find(|reservation| {
        matches!(reservation.holder, Holder::Kept { .. })
            && reservation.addresses.contains(&address)
    });
    for one in &mut released {
        one.kept = kept.as_ref().map(|reservation| reservation.holder.clone());
    }
    Ok(released)
}

/// Why an address that this node has no reservation of cannot be released here.
async fn not_held(
    host: &Host,
    network: &Network,
    address: IpAddr,
    ledger: Option<&Ledger>,
) -> Result<ReleaseError, AllocatorError> {
    let name = network.name().clone();
    let Some(block) = network.block_of(address) else {
        return Ok(ReleaseError::Outside { address, network: name });
    };
    let not_held = |hint: &str| ReleaseError::NotHeld {
        address,
        network: name.clone(),
        hint: hint.to_owned(),
    };
    let damaged = ledger.map(Files::read).transpose()?.is_some_and(|s| !s.damaged.is_empty());
    if damaged && ledger.is_some_and(|ledger| ledger.owns(&block)) {
        return Ok(not_held(
            ", as far as can be told: there are damaged reservations, which `weftctl ipam \
             check` lists",
        ));
    }
    let endpoint = host.cluster().endpoints_of_block(&network.id(), &block).await?.remove(&address);
    if let Some(stored) = endpoint.filter(|stored| stored.record.node != *host.cluster().node()) {
        return Ok(ReleaseError::Lent { address, network: name, node: stored.record.node });
    }
    Ok(match host.cluster().block_record(&network.id(), &block).await? {
        Some(stored) if stored.record.node != *host.cluster().node() => {
            ReleaseError::Elsewhere { address, network: name, owner: stored.record.node }
        }
        Some(_) => not_held(""),
        None => not_held(": no node owns its block"),
    })
}
