//! The identity of this machine.
//!
//! A node's name may be chosen freely, and two machines may be given the same one by mistake. Each
//! would then take the other's blocks for its own. So the record of a node carries the identity of
//! its machine, and a machine with another identity is refused.

use std::io::ErrorKind;
use std::path::Path;

use weft_files::{FileError, place_first};

/// The identity of a machine with systemd or D-Bus (see machine-id(5)).
const SYSTEM: &str = "/etc/machine-id";

/// The identity that weft gives to a machine without one.
const OWN: &str = "/var/lib/weft/machine-id";

/// The kernel's source of random UUIDs.
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";

/// The machine's identity.
pub fn machine_id() -> Result<String, FileError> {
    machine_id_from(Path::new(SYSTEM), Path::new(OWN))
}

fn machine_id_from(system: &Path, own: &Path) -> Result<String, FileError> {
    if let Some(id) = read(system)? {
        return Ok(id);
    }
    if let Some(id) = read(own)? {
        return Ok(id);
    }
    let fresh = std::fs::read_to_string(RANDOM_UUID).map_err(FileError::io("read", RANDOM_UUID))?;
    let dir = own.parent().unwrap_or(own);
    std::fs::create_dir_all(dir).map_err(FileError::io("create", dir))?;
    // Two processes may come here at once.
    let draft = own.with_extension(format!("{}", std::process::id()));
    std::fs::write(&draft, fresh).map_err(FileError::io("write", &draft))?;
    place_first(&draft, own)?;
    read(own)?.ok_or_else(|| FileError::io("read", own)(ErrorKind::NotFound.into()))
}

/// The identity in the file, if it holds one: systemd leaves the file empty, or with the word
/// `uninitialized`, until the first boot has come far enough.
fn read(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            Ok(Some(text.trim().replace('-', ""))
                .filter(|id| !id.is_empty() && id != "uninitialized"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_identity_gets_one_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let (system, own) = (dir.path().join("etc"), dir.path().join("var/machine-id"));
        let first = machine_id_from(&system, &own).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(machine_id_from(&system, &own).unwrap(), first);
        std::fs::write(&system, "uninitialized\n").unwrap();
        assert_eq!(machine_id_from(&system, &own).unwrap(), first);
        std::fs::write(&system, "0123456789abcdef0123456789abcdef\n").unwrap();
        assert_eq!(machine_id_from(&system, &own).unwrap(), "0123456789abcdef0123456789abcdef");
    }
}
