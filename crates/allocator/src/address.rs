//! An address on request: from the node's own files where they suffice, else with the cluster
//! store.
//!
//! This is what a plugin or a driver calls. What it asks for is an [`AddressRequest`], what it
//! gets an [`AddressGrant`] that only has to be formatted. The same holder that asks again gets
//! the same address; a failed request reserves nothing.

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use weft_cluster::{Cluster, ClusterError, networks};
use weft_ledger::ledger::{About, Outcome, Want};
use weft_ledger::{FileError, Holder, Ledger, Reservation, Sandbox};
use weft_model::network::Route;
use weft_model::{MacAddr, Network, NetworkName, NetworkSpec, Sticky};

use crate::{AllocatorError, acquire, sticky};

/// A request for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRequest {
    /// The network.
    pub network: NetworkName,
    /// The caller's configuration of the network. It must agree with the network that exists, and
    /// creates one that does not if it names a subnet.
    pub spec: NetworkSpec,
    /// The holder of the address.
    pub holder: Holder,
    /// Wanted addresses, at most one host number of the network. Addresses of other networks are
    /// ignored beside one of this network: some runtimes name all addresses of a container to each
    /// of its networks.
    pub wanted: Vec<IpAddr>,
    /// The container's network namespace, by which it is known whether it is still there.
    pub sandbox: Option<Sandbox>,
    /// The identity that keeps its address.
    pub sticky: Option<Sticky>,
}

/// An address that the holder has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressGrant {
    network: Network,
    reservation: Reservation,
}

/// An address of one family as an interface is configured with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantedAddress {
    /// The address with the subnet's prefix length, host bits kept.
    pub address: IpNetwork,
    /// The next hop out of the subnet; absent in a network without a gateway.
    pub gateway: Option<IpAddr>,
}

impl AddressGrant {
    pub(crate) fn new(network: Network, reservation: Reservation) -> Self {
        Self { network, reservation }
    }

    /// The network's definition.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The reservation.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// The reservation alone.
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }

    /// The addresses, one of each family that the pool has.
    pub fn addresses(&self) -> Vec<GrantedAddress> {
        let granted = |address: &IpAddr| {
            let family = self.network.family_of(*address)?;
            let address = family.subnet.with_host(*address)?;
            Some(GrantedAddress { address, gateway: family.gateway })
        };
        self.reservation.addresses.iter().filter_map(granted).collect()
    }

    /// The MAC that follows from the address: other nodes know it already.
    pub fn mac(&self) -> Option<MacAddr> {
        let Reservation { pool, host, .. } = self.reservation;
        self.network.addresses(pool, host).map(|addresses| addresses.mac)
    }

    /// The container's routes: `own` if it has routes of its own, else the network's. A route of a
    /// family that the container has no address in is left out, for it would only fail.
    pub fn routes(&self, own: Option<&[Route]>) -> Vec<Route> {
        let routes = own.unwrap_or(&self.network.record().routes);
        let has_family = |route: &&Route| {
            self.reservation.addresses.iter().any(|a| a.is_ipv4() == route.dst.is_ipv4())
        };
        routes.iter().filter(has_family).cloned().collect()
    }
}

impl AddressRequest {
    fn about(&self) -> About<'_> {
        About { sandbox: self.sandbox.as_ref(), sticky: self.sticky.as_ref() }
    }

    /// The wanted addresses as a place in `network`.
    fn want(&self, network: &Network) -> Result<Want, AllocatorError> {
        let mut places = self.wanted.iter().filter_map(|address| network.locate(*address));
        let Some((pool, host)) = places.next() else {
            return match self.wanted.first() {
                None => Ok(Want::Any),
                Some(address) => Err(AllocatorError::AddressOutside {
                    address: *address,
                    network: network.name().clone(),
                }),
            };
        };
        if places.any(|place| place != (pool, host)) {
            let list: Vec<String> = self.wanted.iter().map(ToString::to_string).collect();
            return Err(AllocatorError::AddressesApart {
                addresses: list.join(", "),
                network: network.name().clone(),
            });
        }
        Ok(Want::Exactly(pool, host))
    }

    /// The grant of `reservation`, unless the holder had it before and it is not what is wanted.
    fn granted(
        &self,
        network: Network,
        reservation: Reservation,
    ) -> Result<AddressGrant, AllocatorError> {
        let is_of_network = |address: &&IpAddr| network.locate(**address).is_some();
        let mut wanted = self.wanted.iter().filter(is_of_network);
        if let Some(other) = wanted.find(|address| !reservation.addresses.contains(address)) {
            return Err(AllocatorError::HolderHasOther {
                wanted: *other,
                held: reservation.shown(),
                holder: Box::new(reservation.holder),
                network: network.name().clone(),
            });
        }
        Ok(AddressGrant::new(network, reservation))
    }
}

/// Gives the holder an address. The cluster is connected to only if this node's files do not
/// suffice.
///
/// That can take a while. The caller may be gone by then, and its release may have come before:
/// then `still_wanted` says no, and nothing is reserved.
pub async fn acquire(
    data_dir: &Path,
    connect: impl FnOnce() -> Result<Cluster, ClusterError>,
    request: &AddressRequest,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<AddressGrant, AllocatorError> {
    if let Some(grant) = acquire_locally(data_dir, request)? {
        return Ok(grant);
    }
    acquire_in_cluster(data_dir, &connect()?, request, still_wanted).await
}

/// Gives the holder an address by this node's files alone; `None` if they do not suffice: the
/// network is new to the node, its blocks are full, or the cluster may know an address of the
/// identity.
pub fn acquire_locally(
    data_dir: &Path,
    request: &AddressRequest,
) -> Result<Option<AddressGrant>, AllocatorError> {
    let Some(network) = networks::cached(data_dir, &request.network)? else { return Ok(None) };
    if networks::agree(&network, &request.spec).is_err() {
        return Ok(None);
    }
    let Ok(want) = request.want(&network) else { return Ok(None) };
    let ledger = Ledger::open(data_dir, network.clone())?;
    if !is_local(&ledger, request, want)? {
        return Ok(None);
    }
    match ledger.reserve(&request.holder, want, request.about())? {
        Outcome::Held(reservation) => request.granted(network, reservation).map(Some),
        _ => Ok(None),
    }
}

/// Returns whether the node's own files tell which address it is to be. An identity that is not
/// known here may have an address by which the cluster knows it.
fn is_local(ledger: &Ledger, request: &AddressRequest, want: Want) -> Result<bool, FileError> {
    let Some(sticky) = &request.sticky else { return Ok(true) };
    Ok(matches!(want, Want::Exactly(..))
        || ledger.keeps_for(sticky)?
        || ledger.reservation(&request.holder)?.is_some())
}

/// Gives the holder an address with the help of the cluster store: looks the network up or creates
/// it, claims a block, or borrows an address.
pub async fn acquire_in_cluster(
    data_dir: &Path,
    cluster: &Cluster,
    request: &AddressRequest,
    still_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<AddressGrant, AllocatorError> {
    let AddressRequest { network: name, spec, holder, .. } = request;
    cluster.claim_name()?;
    let mut network = networks::resolve(data_dir, cluster, name, spec).await?;
    if request.want(&network).is_err() {
        network = networks::renew(data_dir, cluster, name).await?;
    }
    let want = request.want(&network)?;
    let ledger = Ledger::open(data_dir, network.clone())?;
    let about = request.about();
    let reservation = match about.sticky {
        Some(sticky) if want == Want::Any => {
            sticky::reserve(cluster, ledger, holder, sticky, about, still_wanted).await?
        }
        _ => acquire::reserve(cluster, ledger, holder, want, about, still_wanted).await?,
    };
    // The address may lie in a pool that the network did not have when it was looked up.
    let network = networks::cached(data_dir, name)?.unwrap_or(network);
    request.granted(network, reservation)
}
