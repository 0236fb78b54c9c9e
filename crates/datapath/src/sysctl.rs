//! The few kernel settings that weft needs, in the calling thread's network namespace.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use crate::DatapathError;

const SYSCTL: &str = "/proc/sys";

/// The directory of each interface's IPv6 settings.
const IPV6: &str = "net/ipv6/conf";

/// Lets the host route between its interfaces, in the family of `address`.
pub fn allow_forwarding(address: IpAddr) -> Result<(), DatapathError> {
    match address {
        IpAddr::V4(_) => set("net/ipv4/ip_forward", "1"),
        IpAddr::V6(_) => {
            let all = format!("{IPV6}/all/forwarding");
            if get(&all)?.is_some_and(|value| value != "1") {
                keep_router_advertisements()?;
            }
            set(&all, "1")
        }
    }
}

/// Keeps the interfaces that listen to router advertisements listening when the host forwards. With
/// 1 they would not, and the kernel would remove the default routes that they brought.
fn keep_router_advertisements() -> Result<(), DatapathError> {
    let path = Path::new(SYSCTL).join(IPV6);
    let failed = |source| DatapathError::Io { what: format!("list {}", path.display()), source };
    for entry in fs::read_dir(&path).map_err(failed)? {
        let Ok(device) = entry.map_err(failed)?.file_name().into_string() else { continue };
        if matches!(device.as_str(), "all" | "default") {
            continue;
        }
        let is = |name: &str, value: &str| {
            get(&format!("{IPV6}/{device}/{name}")).map(|is| is.as_deref() == Some(value))
        };
        if is("accept_ra", "1")? && is("forwarding", "0")? {
            set(&format!("{IPV6}/{device}/accept_ra"), "2")?;
        }
    }
    Ok(())
}

/// Lets `device` have IPv6 addresses.
pub fn allow_ipv6(device: &str) -> Result<(), DatapathError> {
    set(&format!("{IPV6}/{device}/disable_ipv6"), "0")
}

/// Makes `device` deaf to router advertisements: a container could send them (CVE-2020-10749).
pub fn ignore_router_advertisements(device: &str) -> Result<(), DatapathError> {
    set(&format!("{IPV6}/{device}/accept_ra"), "0")
}

/// Writes a setting unless it has the value already. One that the kernel lacks, as without IPv6,
/// needs no setting.
fn set(name: &str, value: &str) -> Result<(), DatapathError> {
    match get(name)? {
        Some(current) if current != value => fs::write(Path::new(SYSCTL).join(name), value)
            .map_err(|source| DatapathError::Io { what: format!("set {name} to {value}"), source }),
        _ => Ok(()),
    }
}

/// The value of a setting, if the kernel has it.
fn get(name: &str) -> Result<Option<String>, DatapathError> {
    match fs::read_to_string(Path::new(SYSCTL).join(name)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DatapathError::Io { what: format!("read {name}"), source }),
    }
}
