//! The few kernel settings that weft needs, in the calling thread's network namespace.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use crate::DatapathError;

/// Lets the host route between its interfaces, in the family of `address`.
pub fn allow_forwarding(address: IpAddr) -> Result<(), DatapathError> {
    match address {
        IpAddr::V4(_) => set("net/ipv4/ip_forward", "1"),
        IpAddr::V6(_) => set("net/ipv6/conf/all/forwarding", "1"),
    }
}

/// Makes `device` deaf to router advertisements: a container could send them (CVE-2020-10749).
pub fn ignore_router_advertisements(device: &str) -> Result<(), DatapathError> {
    set(&format!("net/ipv6/conf/{device}/accept_ra"), "0")
}

/// Writes a setting unless it has the value already. One that the kernel lacks, as without IPv6,
/// needs no setting.
fn set(name: &str, value: &str) -> Result<(), DatapathError> {
    let path = Path::new("/proc/sys").join(name);
    let failed = |source| DatapathError::Io { what: format!("set {name} to {value}"), source };
    match fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        Ok(_) => fs::write(&path, value).map_err(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
