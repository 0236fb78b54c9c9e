//! weft's keys in a CNI network configuration, read once for both plugins.
//!
//! Keys that mean the same as in the reference `bridge` and `host-local` plugins have the same
//! names and shapes, so a configuration written for those can be tried with weft by changing the
//! two `type`s. What is weft's own is `vni` and, under `ipam`, `exclude`, `blockBits`, `sticky` and
//! `stickySeconds`.
//!
//! ```json
//! { "type": "weft", "vni": 10007, "isGateway": true, "ipMasq": true, "mtu": 1400,
//!   "hairpinMode": false,
//!   "ipam": { "type": "weft-ipam", "subnet": "10.9.0.0/16", "gateway": "10.9.0.1",
//!             "rangeStart": "10.9.1.0", "rangeEnd": "10.9.255.254", "exclude": ["10.9.7.0/24"],
//!             "routes": [ { "dst": "0.0.0.0/0" } ] } }
//! ```

mod error;
mod pools;
mod wire;

use serde_json::{Map, Value};
use weft_model::NetworkSpec;
use weft_model::network::{Masquerade, Mode, Route};

pub use error::NetConfError;

/// A configuration's settings for weft.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetConf {
    /// The network as it describes it.
    pub spec: NetworkSpec,
    /// Routes for this container; absent: the network's.
    pub routes: Option<Vec<Route>>,
    /// Hairpin mode: a container reaches itself by way of its own service address only if it is on.
    pub hairpin: Hairpin,
    /// True if a Kubernetes pod keeps its address by its name: `ipam.sticky` is `"pod"`.
    pub sticky_pods: bool,
    /// For how many seconds the address of an identity is kept.
    pub sticky_seconds: u64,
}

/// Seconds for which the address of an identity is kept by default: a day.
const STICKY_SECONDS: u64 = 86_400;

/// The longest time for which an address is kept: ten years.
const LONGEST_STICKY: u64 = 3650 * 86_400;

/// Hairpin mode: the bridge sends a frame back through the port that it came from, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hairpin {
    /// It does.
    On,
    /// It does not.
    #[default]
    Off,
}

/// The plugin, of the two, that the main plugin's keys were written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainPlugin {
    /// `weft`: they describe the network.
    Weft,
    /// Another one, such as `bridge`: they are its own, and only `ipam` speaks to weft.
    Foreign,
}

impl NetConf {
    /// Reads weft's keys out of a plugin configuration. Unknown keys belong to others and are
    /// ignored; keys that Go programs spell in another case are recognised.
    pub fn parse(config: &Map<String, Value>) -> Result<Self, NetConfError> {
        let wire = wire::Keys::read(config)?;
        let main = match wire.plugin.as_deref() {
            Some("weft" | "weft-ipam") | None => MainPlugin::Weft,
            Some(_) => MainPlugin::Foreign,
        };
        let mut spec = NetworkSpec {
            pools: pools::from_wire(&wire.ipam, &wire.given)?,
            routes: wire.ipam.routes.clone().unwrap_or_default(),
            ..NetworkSpec::default()
        };
        if main == MainPlugin::Weft {
            spec.vni = wire.vni.map(weft_model::Vni::new).transpose()?;
            spec.mode = wire.is_gateway.map(|on| if on { Mode::Gateway } else { Mode::Internal });
            spec.masquerade =
                wire.ip_masq.map(|on| if on { Masquerade::On } else { Masquerade::Off });
            // The reference bridge plugin reads 0 as "not set".
            spec.mtu = wire.mtu.filter(|mtu| *mtu != 0);
        }
        spec.check()?;
        let hairpin = if wire.hairpin_mode.unwrap_or(false) { Hairpin::On } else { Hairpin::Off };
        let sticky_pods = match wire.ipam.sticky.as_deref() {
            None => false,
            Some("pod") => true,
            Some(other) => {
                return Err(NetConfError(format!("sticky {other:?}: the only value is \"pod\"")));
            }
        };
        let sticky_seconds = wire.ipam.sticky_seconds.unwrap_or(STICKY_SECONDS);
        if sticky_seconds > LONGEST_STICKY {
            return Err(NetConfError(format!(
                "stickySeconds {sticky_seconds}: at most {LONGEST_STICKY}, ten years"
            )));
        }
        Ok(Self { spec, routes: wire.ipam.routes, hairpin, sticky_pods, sticky_seconds })
    }
}

#[cfg(test)]
mod tests;
