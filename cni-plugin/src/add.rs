//! ADD: the container is connected afterwards, or nothing is left of the attempt.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use log::debug;
use weft_cluster::networks;
use weft_cni::result::{Dns, Interface};
use weft_cni::{CniError, CniResult, Request, code};
use weft_datapath::attach::{self, Hairpin, InterfaceSpec, Port, PortSecurity, PortSpec, Route};
use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};
use weft_model::{MacAddr, Network, device};
use weft_wiring::SegmentState;
use weft_wiring::setup::OwnAddress;

use crate::attachment::{Call, requested_mac};
use crate::error::kernel_error;
use crate::ipam::{Ipam, addresses};
use crate::undo::Undo;

/// Connects the container.
pub(crate) async fn add(request: &Request) -> Result<CniResult, CniError> {
    let call = Call::of(request)?;
    let ipam = Ipam::of(request)?;
    let wishes = Wishes::of(request)?;
    let sandbox = Sandbox::open(request)?;
    let mut undo = Undo::default();
    match connect(request, &call, ipam.as_ref(), wishes, &sandbox, &mut undo).await {
        Ok(result) => Ok(result),
        Err(error) => {
            undo.run().await;
            Err(error)
        }
    }
}

/// What the caller says beside the network. It is read before anything is made: what cannot be
/// understood makes no network either.
struct Wishes {
    mac: Option<MacAddr>,
    previous: CniResult,
    dns: Dns,
}

impl Wishes {
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

/// The container's network namespace.
struct Sandbox {
    netns: Netns,
    /// A connection to the kernel inside of it.
    inside: Netlink,
    path: String,
}

impl Sandbox {
    fn open(request: &Request) -> Result<Self, CniError> {
        let path = request.netns().unwrap_or_default().to_owned();
        let invalid = |msg: String| CniError::new(code::INVALID_NETNS, msg);
        let netns = Netns::open(&path).map_err(|error| invalid(format!("CNI_NETNS: {error}")))?;
        let own = Netns::current().map_err(|error| invalid(error.to_string()))?;
        if netns == own && !request.environment().allows_own_netns() {
            return Err(invalid(format!(
                "CNI_NETNS {path} is the plugin's own network namespace; a container needs one of \
                 its own"
            )));
        }
        // Only who enters it learns whether it is a namespace of networks.
        let inside = Netlink::open_in(&netns, Entry::CallingThread)
            .map_err(|error| kernel_error("enter the container's namespace", error))?;
        Ok(Self { netns, inside, path })
    }
}

async fn connect<'a>(
    request: &'a Request,
    call: &'a Call,
    ipam: Option<&'a Ipam>,
    wishes: Wishes,
    sandbox: &Sandbox,
    undo: &mut Undo<'a>,
) -> Result<CniResult, CniError> {
    let (network, state) = segment(call).await?;
    // The IPAM looks for an address while the kernel makes the interface.
    let running = match ipam {
        None => None,
        Some(ipam) => {
            let mut running = ipam.start(request)?;
            undo.address(ipam, request);
            running.send(request.raw())?;
            Some(running)
        }
    };
    let alias = format!("weft:{}", call.attachment);
    let mut port = PortSpec {
        host_end: &call.host_end,
        host_mac: MacAddr::from_seed(&call.host_end),
        bridge: state.bridge,
        mtu: state.mtu,
        ifname: request.ifname(),
        netns: &sandbox.netns,
    };
    let (state, made) = match make_port(call, &network, state, &mut port).await {
        Ok(made) => made,
        Err(error) => {
            // A container that is attached already keeps its address.
            if call.is_attached().await {
                undo.forget();
            }
            return Err(error);
        }
    };
    undo.port(call.host.netlink(), &call.host_end);

    let assigned = match running {
        None => CniResult::default(),
        Some(running) => addresses(running, request)?,
    };
    let ips: Vec<IpNetwork> = assigned.ips.iter().map(|ip| ip.address).collect();
    let (network, state) = extended(call, network, state, &ips).await?;
    let mac = wishes.mac.unwrap_or_else(|| mac_for(&network, &ips, call));
    let routes = routes(&assigned);
    let interface = InterfaceSpec {
        index: made.interface,
        ifname: request.ifname(),
        netns: &sandbox.netns,
        mac,
        addresses: &ips,
        routes: &routes,
    };
    let hairpin = match call.conf.hairpin {
        weft_netconf::Hairpin::On => Hairpin::On,
        weft_netconf::Hairpin::Off => Hairpin::Off,
    };
    // Before there is a carrier: afterwards the host's end would have a link-local address already.
    let security =
        PortSecurity { index: made.host_end, name: &call.host_end, alias: &alias, mac, hairpin };
    attach::secure_port(call.host.netlink(), &security)
        .await
        .map_err(|error| call.error("protect the interface", error))?;
    attach::configure_interface(&sandbox.inside, &interface)
        .await
        .map_err(|error| call.error("configure the interface", error))?;
    Ok(describe(call, wishes, &state, assigned, mac, &sandbox.path))
}

/// The network and what this host has of it; made first if this host has nothing.
async fn segment(call: &Call) -> Result<(Network, SegmentState), CniError> {
    let data_dir = &call.host.config().data_dir;
    let spec = &call.conf.spec;
    let cached = networks::cached(data_dir, &call.attachment.network)
        .map_err(|error| call.error("read the network's definition", error))?;
    if let Some(network) = cached
        && networks::agree(&network, spec).is_ok()
        && let Some(state) = SegmentState::recall(data_dir, &network)
        && call
            .host
            .is_intact(&state)
            .await
            .map_err(|error| call.error("look at the bridge", error))?
    {
        return Ok((network, state));
    }
    let check = call.host.check_mtu(&call.attachment.network, spec.mtu).await;
    check.map_err(|error| call.error("look at the underlay", error))?;
    let cluster = call.host.cluster();
    let network = networks::resolve(data_dir, cluster, &call.attachment.network, spec)
        .await
        .map_err(|error| call.error("look the network up", error))?;
    let state = call
        .host
        .ensure(&network, call.own_address())
        .await
        .map_err(|error| call.error("put the network on this host", error))?;
    Ok((network, state))
}

/// The network and what this host has of it, once more: the IPAM plugin may be the first on this host
/// to learn of a pool, and give an address of it.
async fn extended(
    call: &Call,
    network: Network,
    state: SegmentState,
    ips: &[IpNetwork],
) -> Result<(Network, SegmentState), CniError> {
    let is_known = |ip: &IpNetwork| network.locate(ip.ip()).is_some();
    if call.own_address() == OwnAddress::Gateway || ips.iter().all(is_known) {
        return Ok((network, state));
    }
    let cached = networks::cached(&call.host.config().data_dir, network.name())
        .map_err(|error| call.error("read the network's definition", error))?;
    let Some(newer) = cached.filter(|cached| *cached != network) else {
        return Ok((network, state));
    };
    let state = call.host.ensure(&newer, call.own_address()).await;
    let state = state.map_err(|error| call.error("put the network on this host", error))?;
    Ok((newer, state))
}

/// Makes the veth pair. A bridge that has gone since it was looked at is made again, once.
async fn make_port(
    call: &Call,
    network: &Network,
    state: SegmentState,
    port: &mut PortSpec<'_>,
) -> Result<(SegmentState, Port), CniError> {
    let failed = |error| call.error("make the interface", error);
    match attach::create_port(call.host.netlink(), port).await {
        Ok(made) => return Ok((state, made)),
        Err(error) if error.is_exists() => {
            let msg = format!(
                "interface {} exists in the container, or {} is attached already; DEL it first",
                port.ifname, call.attachment
            );
            return Err(CniError::new(code::IO_FAILURE, msg).with_details(error.to_string()));
        }
        Err(error) if call.host.is_intact(&state).await.unwrap_or(false) => {
            return Err(failed(error));
        }
        Err(error) => debug!("making the bridge again: {error}"),
    }
    let state = call.host.ensure(network, call.own_address()).await;
    let state = state.map_err(|error| call.error("put the network on this host", error))?;
    port.bridge = state.bridge;
    let made = attach::create_port(call.host.netlink(), port).await.map_err(failed)?;
    Ok((state, made))
}

/// The MAC that follows from the address; from the attachment where a foreign IPAM gave an address
/// that is none of the network's.
fn mac_for(network: &Network, ips: &[IpNetwork], call: &Call) -> MacAddr {
    let derived = ips.iter().find_map(|ip| {
        let (pool, host) = network.locate(ip.ip())?;
        Some(network.addresses(pool, host)?.mac)
    });
    derived.unwrap_or_else(|| MacAddr::from_seed(&format!("container/{}", call.attachment)))
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
    call: &Call,
    wishes: Wishes,
    state: &SegmentState,
    assigned: CniResult,
    mac: MacAddr,
    sandbox: &str,
) -> CniResult {
    let mut result = wishes.previous;
    let mtu = Some(state.mtu);
    let interface = |name: &str, mac: String, sandbox: &str| Interface {
        name: name.to_owned(),
        mac,
        mtu,
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    };
    let bridge_mac = state.bridge_mac.to_string();
    let host_mac = MacAddr::from_seed(&call.host_end).to_string();
    let bridge = device::bridge(state.network.vni());
    result.interfaces.push(interface(&bridge, bridge_mac, ""));
    result.interfaces.push(interface(&call.host_end, host_mac, ""));
    let index = result.interfaces.len();
    result.interfaces.push(interface(call.attachment.ifname.as_str(), mac.to_string(), sandbox));
    for mut ip in assigned.ips {
        ip.interface = Some(index);
        result.ips.push(ip);
    }
    result.routes.extend(assigned.routes);
    result.dns = if wishes.dns == Dns::default() { assigned.dns } else { wishes.dns };
    result
}
