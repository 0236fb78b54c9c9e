//! ADD: the attachment holds an address afterwards, the same one however often it asks; or it holds
//! none, and the error says why.

use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_allocator::{AddressGrant, AddressRequest, AllocatorError, address};
use weft_cni::result::{Ip, Route};
use weft_cni::{CniError, CniResult, Request, code};

use crate::request::{Call, holder, sandbox, sticky};

/// An ADD, checked.
pub struct Add {
    call: Call,
    request: AddressRequest,
}

impl Add {
    /// Checks the call.
    pub fn of(request: &Request, call: Call) -> Result<Self, CniError> {
        let request = AddressRequest {
            network: call.network.clone(),
            spec: call.conf.spec.clone(),
            holder: holder(request)?,
            sandbox: sandbox(request),
            wanted: wanted(request)?,
            sticky: sticky(request, &call.conf)?,
        };
        Ok(Self { call, request })
    }

    /// The result, if this node's files suffice.
    pub fn locally(&self) -> Result<Option<CniResult>, CniError> {
        let grant = address::acquire_locally(&self.call.node.data_dir, &self.request);
        Ok(grant.map_err(|error| self.failed(error))?.map(|grant| self.describe(&grant)))
    }

    /// The result with the help of the cluster store.
    pub async fn in_cluster(&self) -> Result<CniResult, CniError> {
        let cluster = self.call.cluster()?;
        let data_dir = &self.call.node.data_dir;
        let grant =
            address::acquire_in_cluster(data_dir, &cluster, &self.request, &caller_waits).await;
        Ok(self.describe(&grant.map_err(|error| self.failed(error))?))
    }

    fn failed(&self, error: AllocatorError) -> CniError {
        self.call.error("reserve an address", error)
    }

    fn describe(&self, grant: &AddressGrant) -> CniResult {
        let ip = |granted: address::GrantedAddress| Ip {
            interface: None,
            address: granted.address,
            gateway: granted.gateway,
        };
        let routes = grant.routes(self.call.conf.routes.as_deref());
        CniResult {
            ips: grant.addresses().into_iter().map(ip).collect(),
            routes: routes.iter().map(|route| Route::new(route.dst, route.gw)).collect(),
            ..CniResult::default()
        }
    }
}

/// Returns whether the caller still waits for the result: the other end of standard output is open.
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
