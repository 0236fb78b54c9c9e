//! Firewall rules: masquerade for what leaves a network, and none of it into another. Nothing
//! leaves an internal network, and nothing comes into it: no gateway does not mean no way out,
//! since the host routes whatever is sent to the bridge's MAC.
//!
//! One table, `inet weft`, filled once for each network and never for a container. Each network has
//! two chains, reached by a verdict map from the name of its bridge, so that a packet meets the
//! rules of one network however many there are:
//!
//! ```text
//! table inet weft {
//!   set bridges            { type ifname; elements = { wb10000, wb10001, ... } }
//!   set internal           { type ifname; elements = { wb10001, ... } }
//!   map masquerade         { type ifname : verdict
//!                            elements = { wb10000 : goto masquerade-wb10000, ... } }
//!   map isolate            { type ifname : verdict
//!                            elements = { wb10000 : goto isolate-wb10000, ... } }
//!   chain postrouting      { type nat hook postrouting priority srcnat; iifname vmap @masquerade }
//!   chain forward          { type filter hook forward priority filter; iifname vmap @isolate
//!                            oifname @internal drop }
//!   chain input            { type filter hook input priority filter; iifname @internal drop }
//!   chain masquerade-wb10000 { ip saddr 10.9.0.0/16 ip daddr != 10.9.0.0/16
//!                              ip daddr != 224.0.0.0/4 oifname != "wb10000"
//!                              masquerade fully-random }
//!   chain isolate-wb10000    { oifname != "wb10000" oifname @bridges drop }
//!   chain isolate-wb10001    { oifname != "wb10001" drop }
//! }
//! ```
//!
//! Everything is one transaction, and the same one each time: what is there is emptied and filled
//! again, so it may be run at any moment, by several processes at once.
//!
//! Each function runs `nft` and waits for at most ten seconds on the calling thread. A process that
//! serves others calls them from a thread of its own for such work: were they to take yet another
//! of the same threads, many callers could take all of them and wait for one more.

mod listing;
mod nft;
mod rules;

use weft_model::{Network, NetworkName, device};

use self::listing::Listing;
use self::nft::Running;
use self::rules::Transaction;
use crate::DatapathError;

/// The program that sets and lists rules, found by `PATH`.
const NFT: &str = "nft";

const FAMILY: &str = "inet";
const TABLE: &str = "weft";

/// Makes sure that the rules of `network` are set. Runs `nft` and waits for it.
///
/// # Errors
///
/// [`DatapathError::Firewall`] if `nft` cannot be run, refuses, or does not answer within ten
/// seconds.
pub fn ensure(network: &Network) -> Result<(), DatapathError> {
    begin(network)?.wait()
}

/// Starts to set the rules of `network` and returns at once, so that the caller can do other work
/// while `nft` runs. `nft` works on the network namespace of the calling thread.
///
/// # Errors
///
/// [`DatapathError::Firewall`] if `nft` cannot be run. Everything else is for [`Pending::wait`] to
/// tell.
pub fn begin(network: &Network) -> Result<Pending, DatapathError> {
    start("set", network, &rules::to_set(network))
}

/// Rules on their way into the kernel. Dropped without [`Pending::wait`], `nft` is killed and
/// collected, and the rules may be set or not.
#[derive(Debug)]
#[must_use = "the rules are set for certain only after `wait`"]
pub struct Pending {
    action: &'static str,
    network: NetworkName,
    running: Running,
}

impl Pending {
    /// Waits until the rules are set.
    ///
    /// # Errors
    ///
    /// [`DatapathError::Firewall`] if `nft` refuses, or has not answered within ten seconds of its
    /// start.
    pub fn wait(self) -> Result<(), DatapathError> {
        let Self { action, network, running } = self;
        let failed = |problem| failure(action, &network, problem);
        match running.wait().map_err(failed)? {
            output if output.success => Ok(()),
            output => Err(failed(output.stderr)),
        }
    }
}

/// Returns whether the rules of `network` are set, as far as counting them tells. Runs `nft` and
/// waits for it.
///
/// # Errors
///
/// As of [`ensure`], but for a refusal: without the table there are no rules.
pub fn is_present(network: &Network) -> Result<bool, DatapathError> {
    let failed = |problem: String| failure("read", network.name(), problem);
    let arguments = ["--json", "list", "table", FAMILY, TABLE];
    let output = nft::run(NFT, &arguments, &[], nft::TIMEOUT).map_err(failed)?;
    if !output.success {
        return Ok(false);
    }
    let listing = Listing::of(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let (wanted, bridge) = (rules::to_set(network), device::bridge(network.vni()));
    let rules = |(chain, count): (&str, usize)| listing.rules(chain) == count;
    let element = |(set, holds): (&str, bool)| listing.holds(set, &bridge) == holds;
    Ok(wanted.rules().into_iter().all(rules) && wanted.sets().into_iter().all(element))
}

/// Makes sure that there are no rules of `network`. Runs `nft` and waits for it.
///
/// # Errors
///
/// As of [`ensure`].
pub fn remove(network: &Network) -> Result<(), DatapathError> {
    start("remove", network, &rules::to_remove(network))?.wait()
}

/// Starts `nft` with `transaction`.
fn start(
    action: &'static str,
    network: &Network,
    transaction: &Transaction,
) -> Result<Pending, DatapathError> {
    let failed = |problem| failure(action, network.name(), problem);
    let payload = serde_json::to_vec(transaction).map_err(|error| failed(error.to_string()))?;
    let arguments = ["--json", "--file", "-"];
    let running = Running::start(NFT, &arguments, &payload, nft::TIMEOUT).map_err(failed)?;
    Ok(Pending { action, network: network.name().clone(), running })
}

fn failure(action: &'static str, network: &NetworkName, problem: String) -> DatapathError {
    DatapathError::Firewall { action, network: network.to_string(), problem }
}
