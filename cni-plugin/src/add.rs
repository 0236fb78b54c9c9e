//! ADD: the container is connected afterwards, or nothing is left of the attempt.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use log::warn;
use weft_cni::result::{Dns, Interface};
use weft_cni::{CniError, CniResult, Request, Version, code};
use weft_model::MacAddr;
use weft_wiring::CallLock;
use weft_wiring::attach::{AttachRequest, Attached, ContainerEnd, Hairpin, Inside, Route};
use weft_wiring::segment_state::SegmentState;

use crate::attachment::{Call, requested_mac, sandbox};
use crate::ipam::{Ipam, Started};

/// Connects the container.
pub(crate) async fn add(request: &Request) -> Result<CniResult, CniError> {
    let call = Call::of(request)?;
    let ipam = Ipam::of(request)?;
    let asked = Asked::of(request)?;
    if ipam.is_none() && asked.previous.ips.is_empty() {
        can_do_without_address(request.version())?;
    }
    let inside = sandbox(request)?;
    let lock = CallLock::wait(&call.host.config().data_dir, &call.attachment);
    let _lock = lock.map_err(|error| call.error("wait for other calls", error))?;
    // A process of the IPAM plugin starts while the network is looked at.
    let started: Option<Started> = ipam.as_ref().map(|ipam| ipam.start(request)).transpose()?;
    let ready = call.host.ready(&call.attachment.network, &call.conf.spec, call.own_address());
    let ready = ready.await.map_err(|error| call.error("put the network on this host", error))?;
    let new_identity = call.new_identity(request).await?;
    let added = connect(request, &call, ready, started, asked, &inside).await;
    // A container that an earlier call attached keeps its address, and so does one whose interface
    // could not be removed: its DEL will free both.
    if added.is_err()
        && let Some(ipam) = &ipam
        && !call.host.is_attached(&call.attachment).await
    {
        // After this the IPAM finds nothing to keep.
        if let Some(identity) = &new_identity
            && let Err(error) = call.forget(identity).await
        {
            warn!("while taking back a failed attempt: {error}");
        }
        if let Err(error) = ipam.undo_add(request).await {
            warn!("while taking back a failed attempt: {error}");
        }
    }
    added
}

/// Requests of the caller beside the network. They are read before anything is made: what cannot be
/// understood makes no network either.
struct Asked {
    mac: Option<MacAddr>,
    previous: CniResult,
    dns: Dns,
}

impl Asked {
    fn of(request: &Request) -> Result<Self, CniError> {
        // They are for the IPAM plugin, which comes too late to find that they are no list.
        request.requested_ips()?;
        Ok(Self {
            mac: requested_mac(request)?,
            previous: request.prev_result()?.unwrap_or_default(),
            dns: request.dns()?,
        })
    }
}

/// Refuses versions whose results must have an address.
fn can_do_without_address(version: Version) -> Result<(), CniError> {
    if CniResult::default().render(version).is_ok() {
        return Ok(());
    }
    let msg = format!(
        "a result of cniVersion {version} must have an address, and the configuration names no \
         ipam; name one, or use a cniVersion from 0.3.0 on"
    );
    Err(CniError::new(code::INCOMPATIBLE_VERSION, msg))
}

async fn connect(
    request: &Request,
    call: &Call,
    ready: SegmentState,
    started: Option<Started>,
    asked: Asked,
    inside: &Inside,
) -> Result<CniResult, CniError> {
    let assigned = match started {
        Some(started) => started.addresses(request, call.known()).await?,
        None => CniResult::default(),
    };
    let addresses: Vec<IpNetwork> = assigned.ips.iter().map(|ip| ip.address).collect();
    let attach = AttachRequest {
        attachment: &call.attachment,
        own_address: call.own_address(),
        hairpin: match call.conf.hairpin {
            weft_netconf::Hairpin::On => Hairpin::On,
            weft_netconf::Hairpin::Off => Hairpin::Off,
        },
        mac: asked.mac,
        container_end: ContainerEnd::Inside(inside),
        addresses: &addresses,
        routes: &routes(&assigned),
    };
    let attached = call.host.attach(ready, &attach).await;
    let attached = attached.map_err(|error| call.error("connect the container", error))?;
    Ok(describe(request, asked, &attached, assigned))
}

/// The routes that the IPAM named. One without a next hop goes by the gateway of its family.
fn routes(assigned: &CniResult) -> Vec<Route> {
    let gateway = |dst: &IpNetwork| -> Option<IpAddr> {
        let mut same = assigned.ips.iter().filter(|ip| ip.address.is_ipv4() == dst.is_ipv4());
        same.find_map(|ip| ip.gateway)
    };
    let route = |route: &weft_cni::result::Route| Route {
        dst: route.dst,
        gw: route.gw.or_else(|| gateway(&route.dst)),
        source: None,
        priority: route.priority,
        table: route.table,
        mtu: route.mtu,
        advmss: route.advmss,
    };
    assigned.routes.iter().map(route).collect()
}

/// The result, in the order that chained plugins go by: bridge, host end, container's end.
fn describe(
    request: &Request,
    asked: Asked,
    attached: &Attached,
    assigned: CniResult,
) -> CniResult {
    let mut result = asked.previous;
    let mtu = Some(attached.state.mtu);
    let interface = |name: &str, mac: MacAddr, sandbox: &str| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        mtu,
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    };
    result.interfaces.push(interface(&attached.bridge, attached.state.bridge_mac, ""));
    result.interfaces.push(interface(&attached.host_end, attached.host_mac, ""));
    let index = result.interfaces.len();
    let sandbox = request.netns().unwrap_or_default();
    result.interfaces.push(interface(request.ifname(), attached.mac, sandbox));
    for mut ip in assigned.ips {
        ip.interface = Some(index);
        result.ips.push(ip);
    }
    result.routes.extend(assigned.routes);
    // The one that comes closest to this call; an earlier plugin's if there is no other.
    let known = [asked.dns, assigned.dns].into_iter().find(|dns| *dns != Dns::default());
    result.dns = known.unwrap_or(result.dns);
    result
}
