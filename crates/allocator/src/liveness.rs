//! Whether a container's network namespace is still there.

use std::collections::HashSet;

use weft_files::Inode;
use weft_ledger::Sandbox;

/// Whether the very namespace that was noted lives on: at its path, or in some process. Where that
/// can't be told it does.
pub fn lives(sandbox: &Sandbox) -> bool {
    Living::look(std::iter::empty()).has(sandbox)
}

/// Which namespaces are there, by one look at all processes.
#[derive(Debug)]
pub struct Living {
    /// The namespaces of all processes; `None` if they could not be looked at.
    processes: Option<HashSet<Inode>>,
    /// Those that are where a reservation says its sandbox is.
    paths: HashSet<Inode>,
}

impl Living {
    /// Looks, knowing of these sandboxes.
    pub fn look<'a>(known: impl Iterator<Item = &'a Sandbox>) -> Self {
        let at_its_path = |sandbox: &Sandbox| {
            Sandbox::observe(&sandbox.netns).identity.filter(|now| sandbox.identity == Some(*now))
        };
        let namespace = |process: std::fs::DirEntry| Inode::at(&process.path().join("ns/net"));
        let processes = std::fs::read_dir("/proc").ok();
        Self {
            processes: processes.map(|all| all.flatten().filter_map(namespace).collect()),
            paths: known.filter_map(at_its_path).collect(),
        }
    }

    /// Whether the very namespace that was noted lives on. The kernel gives the number of one that is
    /// gone to the next: what another sandbox has at its path by now is that one's.
    pub fn has(&self, sandbox: &Sandbox) -> bool {
        let Some(noted) = sandbox.identity else { return true };
        if Sandbox::observe(&sandbox.netns).identity == Some(noted) {
            return true;
        }
        !self.paths.contains(&noted)
            && self.processes.as_ref().is_none_or(|processes| processes.contains(&noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_namespace_lives_while_a_process_is_in_it_wherever_its_path_leads() {
        let own = Sandbox::observe(Path::new("/proc/self/ns/net"));
        assert!(lives(&own));
        assert!(lives(&Sandbox { netns: "/nonexistent".into(), ..own.clone() }));
        assert!(!lives(&Sandbox {
            netns: "/nonexistent".into(),
            identity: Some(Inode::new(1, 1))
        }));
        assert!(lives(&Sandbox { netns: "/nonexistent".into(), identity: None }));
    }

    #[test]
    fn a_number_that_went_to_another_sandbox_proves_nothing() {
        let own = Sandbox::observe(Path::new("/proc/self/ns/net"));
        let gone = Sandbox { netns: "/nonexistent".into(), ..own.clone() };
        assert!(Living::look([&gone].into_iter()).has(&gone), "some process may be in it");
        assert!(!Living::look([&gone, &own].into_iter()).has(&gone), "it is the other's");
        assert!(Living::look([&gone, &own].into_iter()).has(&own));
    }
}
