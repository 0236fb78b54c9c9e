//! ADD: the attachment holds an address afterwards, the same one however often it asks; or it holds
//! none, and the error says why.

use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_allocator::{acquire, sticky};
use weft_cluster::{ClusterError, networks};
use weft_cni::result::{Ip, Route};
use weft_cni::{CniError, CniResult, Request, code};
use weft_ledger::ledger::{About, Outcome, Want};
use weft_ledger::{FileError, Holder, Ledger, Reservation};
use weft_model::Network;

use crate::request::{Call, holder, sandbox, sticky};

/// Reserves an address and describes it.
pub fn add(request: &Request) -> Result<CniResult, CniError> {
    let call = Call::of(request)?;
    let holder = holder(request)?;
    let sandbox = sandbox(request);
    let wanted = wanted(request)?;
    let sticky = sticky(request, &call.conf)?;
    let about = About { sandbox: sandbox.as_ref(), sticky: sticky.as_ref() };
    if let Some(network) = call.cached()?
        && networks::agree(&network, &call.conf.spec).is_ok()
        && let Ok(want) = want(&network, &wanted)
    {
        let ledger = call.ledger(network.clone())?;
        let failed = |error: FileError| call.error("reserve an address", error);
        if is_local(&ledger, &holder, want, about).map_err(failed)?
            && let Outcome::Held(reservation) =
                ledger.reserve(&holder, want, about).map_err(failed)?
        {
            return describe(&call, &network, &reservation, &wanted);
        }
    }
    with_the_cluster(&call, &holder, &wanted, about)
}

/// Whether the node's own files tell which address it is to be. An identity that is not known here may
/// have an address by which the cluster knows it.
fn is_local(
    ledger: &Ledger,
    holder: &Holder,
    want: Want,
    about: About<'_>,
) -> Result<bool, FileError> {
    let Some(sticky) = about.sticky else { return Ok(true) };
    Ok(matches!(want, Want::Exactly(..))
        || ledger.keeps_for(sticky)?
        || ledger.reservation(holder)?.is_some())
}

/// The slow path: the network is new to this node, or its blocks are full.
fn with_the_cluster(
    call: &Call,
    holder: &Holder,
    wanted: &[IpAddr],
    about: About<'_>,
) -> Result<CniResult, CniError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CniError::new(code::IO_FAILURE, format!("start the runtime: {error}")))?;
    let cluster = call.cluster()?;
    let data_dir = &call.node.data_dir;
    runtime.block_on(async {
        let unknown = |error: ClusterError| call.error("look the network up", error);
        let spec = &call.conf.spec;
        let mut network =
            networks::resolve(data_dir, &cluster, &call.network, spec).await.map_err(unknown)?;
        if want(&network, wanted).is_err() {
            network = networks::renew(data_dir, &cluster, &call.network).await.map_err(unknown)?;
        }
        let want = want(&network, wanted)?;
        let ledger: Ledger = call.ledger(network.clone())?;
        let reserved = match about.sticky {
            Some(sticky) if want == Want::Any => {
                sticky::reserve(&cluster, ledger, holder, sticky, about, &caller_waits).await
            }
            _ => acquire::reserve(&cluster, ledger, holder, want, about, &caller_waits).await,
        };
        let reservation = reserved.map_err(|error| call.error("reserve an address", error))?;
        // The address may lie in a pool that the network did not have when it was looked up.
        let network = call.cached()?.unwrap_or(network);
        describe(call, &network, &reservation, wanted)
    })
}

/// Whether somebody still waits for the result: the other end of standard output is open.
fn caller_waits() -> bool {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => true,
    }
}

/// The addresses that the caller asks for by name, if it does.
fn wanted(request: &Request) -> Result<Vec<IpAddr>, CniError> {
    let mut wanted = vec![];
    for text in request.requested_ips()? {
        let address = text.split('/').next().unwrap_or(&text);
        wanted.push(address.parse().map_err(|_| {
            CniError::new(
                code::INVALID_ENVIRONMENT,
                format!("requested address {text} is not an IP address"),
            )
        })?);
    }
    Ok(wanted)
}

/// What to ask the ledger for. Addresses of other networks are passed over: some runtimes name all
/// of a container's addresses to each of its networks.
fn want(network: &Network, wanted: &[IpAddr]) -> Result<Want, CniError> {
    let mut places = wanted.iter().filter_map(|address| network.locate(*address));
    let Some((pool, host)) = places.next() else {
        return match wanted.first() {
            None => Ok(Want::Any),
            Some(address) => Err(CniError::new(
                code::INVALID_CONFIG,
                format!(
                    "requested address {address} lies in no subnet of network {}",
                    network.name()
                ),
            )),
        };
    };
    if places.any(|place| place != (pool, host)) {
        let list: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!(
                "requested addresses {} do not go together: in network {} a container has one host \
                 number, the same in each family",
                list.join(", "),
                network.name()
            ),
        ));
    }
    Ok(Want::Exactly(pool, host))
}

/// The CNI result for a reservation.
fn describe(
    call: &Call,
    network: &Network,
    reservation: &Reservation,
    wanted: &[IpAddr],
) -> Result<CniResult, CniError> {
    let mine = |address: &&IpAddr| network.locate(**address).is_some();
    if let Some(other) = wanted.iter().filter(mine).find(|w| !reservation.addresses.contains(w)) {
        return Err(CniError::new(
            code::INVALID_CONFIG,
            format!(
                "requested address {other}, but {} already holds {} in network {}; delete the \
                 attachment first",
                reservation.holder, reservation.addresses[0], call.network
            ),
        ));
    }
    let mut result = CniResult::default();
    for address in &reservation.addresses {
        let Some(family) = network.family_of(*address) else { continue };
        let Some(with_prefix) = family.subnet.with_host(*address) else { continue };
        result.ips.push(Ip { interface: None, address: with_prefix, gateway: family.gateway });
    }
    let routes = call.conf.routes.as_ref().unwrap_or(&network.record().routes);
    for route in routes {
        // A route of a family that the container has no address in would only fail.
        if result.ips.iter().any(|ip| ip.address.is_ipv4() == route.dst.is_ipv4()) {
            result.routes.push(Route::new(route.dst, route.gw));
        }
    }
    Ok(result)
}
