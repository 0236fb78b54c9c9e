//! The one place that judges whether a container is still there.
//!
//! The evidence is its network namespace, at its path or in any process; the host end of its veth,
//! which the kernel removes with that namespace; and what the runtime said, if it was heard.
//! Callers bring what they know and get the same answer for the same evidence.

use std::collections::HashSet;

use weft_files::Inode;
use weft_ledger::Sandbox;

/// Judgement on a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The container is there.
    Alive,
    /// Nothing is left of it.
    Gone,
    /// The evidence does not suffice.
    Unknown,
}

/// Statement of the runtime about an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// None: it was not asked.
    #[default]
    Silent,
    /// It knows the attachment.
    Lists,
    /// It does not know the attachment. Several runtimes may share a node and its networks, and
    /// each knows only its own containers.
    DoesNotList,
}

/// Evidence about one container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The sandbox that its reservation was made for.
    pub sandbox: Option<&'a Sandbox>,
    /// Presence of the host end of its veth, certain or possible; `false` too if the caller has not
    /// looked.
    pub has_host_end: bool,
    /// The runtime's statement.
    pub runtime: Runtime,
}

/// The network namespaces that are there, read from all processes once.
#[derive(Debug)]
pub struct Living {
    /// The namespaces of all processes; `None` if they could not be read.
    processes: Option<HashSet<Inode>>,
    /// Those that are where a reservation says its sandbox is.
    paths: HashSet<Inode>,
}

impl Living {
    /// The sandboxes that exist at this moment, the `known` ones at their paths among them.
    pub fn observe<'a>(known: impl Iterator<Item = &'a Sandbox>) -> Self {
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

    /// Judges whether a container is there.
    ///
    /// A host end proves life, and so does the namespace that was noted. Without a note of it, only
    /// a runtime that does not list the attachment makes it gone.
    pub fn judge(&self, evidence: &Evidence<'_>) -> Life {
        if evidence.runtime == Runtime::Lists || evidence.has_host_end {
            return Life::Alive;
        }
        match evidence.sandbox.and_then(|sandbox| Some((sandbox, sandbox.identity?))) {
            Some((sandbox, noted)) if self.has(sandbox, noted) => Life::Alive,
            Some(_) => Life::Gone,
            None if evidence.runtime == Runtime::DoesNotList => Life::Gone,
            None => Life::Unknown,
        }
    }

    /// Returns whether the very namespace that was noted lives on. The kernel gives the number of
    /// one that is gone to the next: what another sandbox has at its path is that one's.
    fn has(&self, sandbox: &Sandbox, noted: Inode) -> bool {
        Sandbox::observe(&sandbox.netns).identity == Some(noted)
            || !self.paths.contains(&noted)
                && self.processes.as_ref().is_none_or(|processes| processes.contains(&noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn own() -> Sandbox {
        Sandbox::observe(Path::new("/proc/self/ns/net"))
    }

    fn at_no_path(identity: Option<Inode>) -> Sandbox {
        Sandbox { netns: "/nonexistent".into(), identity }
    }

    fn judge(known: &[&Sandbox], evidence: Evidence<'_>) -> Life {
        Living::observe(known.iter().copied()).judge(&evidence)
    }

    fn of(sandbox: &Sandbox) -> Evidence<'_> {
        Evidence { sandbox: Some(sandbox), ..Evidence::default() }
    }

    #[test]
    fn a_namespace_lives_while_a_process_is_in_it_wherever_its_path_leads() {
        let own = own();
        assert_eq!(judge(&[], of(&own)), Life::Alive);
        assert_eq!(judge(&[], of(&at_no_path(own.identity))), Life::Alive);
        assert_eq!(judge(&[], of(&at_no_path(Some(Inode::new(1, 1))))), Life::Gone);
    }

    #[test]
    fn a_number_that_went_to_another_sandbox_proves_nothing() {
        let own = own();
        let gone = at_no_path(own.identity);
        assert_eq!(judge(&[&gone], of(&gone)), Life::Alive, "some process may be in it");
        assert_eq!(judge(&[&gone, &own], of(&gone)), Life::Gone, "it is the other's");
        assert_eq!(judge(&[&gone, &own], of(&own)), Life::Alive);
    }

    #[test]
    fn without_a_noted_namespace_only_the_runtime_makes_it_gone() {
        let unknown = at_no_path(None);
        for sandbox in [None, Some(&unknown)] {
            let evidence = Evidence { sandbox, ..Evidence::default() };
            assert_eq!(judge(&[], evidence), Life::Unknown);
            let unlisted = Evidence { runtime: Runtime::DoesNotList, ..evidence };
            assert_eq!(judge(&[], unlisted), Life::Gone);
        }
    }

    #[test]
    fn a_host_end_and_a_runtime_that_lists_it_prove_life() {
        let gone = at_no_path(Some(Inode::new(1, 1)));
        let listed = Evidence { runtime: Runtime::Lists, ..of(&gone) };
        assert_eq!(judge(&[], listed), Life::Alive);
        let wired = Evidence { has_host_end: true, runtime: Runtime::DoesNotList, ..of(&gone) };
        assert_eq!(judge(&[], wired), Life::Alive);
        let own = own();
        let unlisted = Evidence { runtime: Runtime::DoesNotList, ..of(&own) };
        assert_eq!(judge(&[], unlisted), Life::Alive, "another runtime may have it");
    }
}
