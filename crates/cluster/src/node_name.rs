//! The name that this node goes by, noted among its own files.
//!
//! What the node's files hold, blocks and addresses, is the cluster's by the node's name. Where the
//! name is the host's, it may change with a lease of DHCP or by a command, and a node that came
//! back under another name would find all its blocks to be another node's, and take its containers
//! off the network. So the name is noted when it is first used with the cluster store, and another
//! one is refused for as long as the files hold anything. A reboot empties them, and the note with
//! them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use log::{info, warn};
use weft_files::{self as files, FileError};
use weft_ledger::layout;
use weft_model::NodeName;

use crate::{ClusterError, agent};

/// Attempts to write the note, which another process may write meanwhile.
const TRIES: usize = 16;

/// Numbers the drafts of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The file with the name.
fn note(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}

/// The content of the note.
enum Noted {
    Nothing,
    Unreadable,
    Name(NodeName),
}

/// The note, by one read: another process may write it at any time.
fn noted(path: &Path) -> Result<Noted, FileError> {
    let Some(content) = files::read(path)? else { return Ok(Noted::Nothing) };
    let name = String::from_utf8(content).ok().and_then(|text| NodeName::new(text.trim()).ok());
    Ok(name.map_or_else(
        || {
            warn!("{} holds no node's name; it is written again", path.display());
            Noted::Unreadable
        },
        Noted::Name,
    ))
}

/// Refuses `node` if the files in `data_dir` are of another name. Writes nothing.
pub(crate) fn check(data_dir: &Path, node: &NodeName) -> Result<(), ClusterError> {
    match noted(&note(data_dir))? {
        Noted::Name(name) if name != *node => Err(renamed(data_dir, name, node)),
        _ => Ok(()),
    }
}

/// Notes that this node is called `node`. Another name before is refused while the files hold
/// anything or the agent runs, and replaced otherwise.
pub(crate) fn claim(data_dir: &Path, node: &NodeName) -> Result<(), ClusterError> {
    let path = note(data_dir);
    for _ in 0..TRIES {
        match noted(&path)? {
            Noted::Name(name) if name == *node => return Ok(()),
            Noted::Name(name)
                if layout::holds_anything(data_dir)? || agent::is_running(data_dir) =>
            {
                return Err(renamed(data_dir, name, node));
            }
            Noted::Name(name) => {
                files::replace(&path, line(node).as_bytes())?;
                info!("node {name} holds nothing and is called {node} from now on");
            }
            Noted::Unreadable => files::replace(&path, line(node).as_bytes())?,
            Noted::Nothing => create(&path, node)?,
        }
    }
    Err(FileError::Damaged { path, reason: "other processes write other names into it".into() }
        .into())
}

/// Creates the note unless another process does.
fn create(path: &Path, node: &NodeName) -> Result<(), FileError> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let draft = path.with_extension(format!("{}.{number}.draft", std::process::id()));
    files::replace(&draft, line(node).as_bytes())?;
    files::place_first(&draft, path)
}

fn line(node: &NodeName) -> String {
    format!("{node}\n")
}

fn renamed(data_dir: &Path, noted: NodeName, node: &NodeName) -> ClusterError {
    ClusterError::Renamed { noted, node: node.clone(), data_dir: data_dir.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn the_first_name_stays_while_anything_is_held_under_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("weft");
        check(&data_dir, &name("a")).unwrap();
        assert!(!data_dir.exists(), "a check writes nothing");
        claim(&data_dir, &name("a")).unwrap();
        claim(&data_dir, &name("a")).unwrap();
        for held in ["blocks/0-0-4", "reservations/c1@eth0"] {
            let file = data_dir.join("networks/red").join(held);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            for error in [claim(&data_dir, &name("b")), check(&data_dir, &name("b"))] {
                let error = error.unwrap_err();
                assert!(error.is_configuration() && !error.is_transient());
                let text = error.to_string();
                for part in ["node a ", "called b", "node = \"a\"", "weftctl node remove a"] {
                    assert!(text.contains(part), "{part} is missing in: {text}");
                }
            }
            claim(&data_dir, &name("a")).unwrap();
            std::fs::remove_file(file).unwrap();
        }
        claim(&data_dir, &name("b")).unwrap();
        assert!(check(&data_dir, &name("a")).is_err());
        assert_eq!(files::names_in(&data_dir).unwrap().len(), 2, "the note and networks/");
    }

    #[test]
    fn another_name_is_refused_while_the_agent_runs_under_the_first() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), &name("a")).unwrap();
        let lock = files::FileLock::wait(&agent::lock_path(dir.path())).unwrap();
        assert!(matches!(claim(dir.path(), &name("b")), Err(ClusterError::Renamed { .. })));
        drop(lock);
        claim(dir.path(), &name("b")).unwrap();
    }

    #[test]
    fn a_note_that_cannot_be_read_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "\n", "a/b\n"] {
            std::fs::write(note(dir.path()), content).unwrap();
            claim(dir.path(), &name("a")).unwrap();
            assert_eq!(files::read(&note(dir.path())).unwrap().unwrap(), b"a\n");
        }
    }

    #[test]
    fn of_two_names_at_once_one_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let held = dir.path().join("networks/red/blocks");
        std::fs::create_dir_all(&held).unwrap();
        std::fs::write(held.join("0-0-4"), "").unwrap();
        let path = dir.path();
        let outcomes = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|i| scope.spawn(move || claim(path, &name(&format!("n{i}"))).is_ok()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|claimed| *claimed).count()
        });
        assert_eq!(outcomes, 1);
    }
}
