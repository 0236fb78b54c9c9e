//! The one place that judges whether a container is still there.
//!
//! The evidence is its network namespace, at its path or in any process; its interface, which the
//! kernel removes with that namespace; and what the runtime said, if it was heard.
//! Callers bring what they know and get the same answer for the same evidence.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::Duration;

use weft_files::Inode;
use weft_ledger::Sandbox;

/// Age from which a sandbox without a process is no longer taken for one that is being made.
pub const DESERTED_AFTER: Duration = Duration::from_secs(300);

/// Judgement on a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The container is there.
    Alive,
    /// Its sandbox is there, without the interface that the address is for, or with one that is
    /// half made. Unless a call is under way, the call that reserved it was killed.
    Unwired,
    /// Its interface is there, in a sandbox without a process that the runtime does not know: the
    /// runtime was killed.
    Deserted,
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

/// Presence of the interface that an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interface {
    /// The caller has not looked, or could not see.
    #[default]
    Unseen,
    /// It is there, or may be.
    There,
    /// It is there, down and without the address: the call that makes it was killed, unless it is
    /// under way.
    HalfMade,
    /// The sandbox, which is there, does not have it.
    Missing,
}

/// Evidence about one container.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// The sandbox that its reservation was made for.
    pub sandbox: Option<&'a Sandbox>,
    /// Its interface.
    pub interface: Interface,
    /// The runtime's statement.
    pub runtime: Runtime,
    /// Age of the reservation.
    pub age: Duration,
}

/// The network namespaces that are there, read from all processes once.
#[derive(Debug)]
pub struct Living {
    /// The namespaces of all processes; `None` if they could not be read.
    processes: Option<HashSet<Inode>>,
    /// True if no process kept its namespace from this one.
    all_processes: bool,
    /// Those that are where a reservation says its sandbox is.
    paths: HashSet<Inode>,
}

impl Living {
    /// The sandboxes that exist at this moment, the `known` ones at their paths among them.
    pub fn observe<'a>(known: impl Iterator<Item = &'a Sandbox>) -> Self {
        let at_its_path = |sandbox: &Sandbox| {
            Sandbox::observe(&sandbox.netns).identity.filter(|now| sandbox.identity == Some(*now))
        };
        let mut all_processes = true;
        let mut namespace = |process: std::fs::DirEntry| {
            let metadata = std::fs::metadata(process.path().join("ns/net"));
            // One that has ended has none. Init is in no sandbox.
            let denied = |error: &std::io::Error| {
                error.kind() == ErrorKind::PermissionDenied && process.file_name() != "1"
            };
            all_processes &= !metadata.as_ref().is_err_and(denied);
            metadata.as_ref().ok().map(Inode::from)
        };
        let processes = std::fs::read_dir("/proc").ok();
        Self {
            processes: processes.map(|all| all.flatten().filter_map(&mut namespace).collect()),
            all_processes,
            paths: known.filter_map(at_its_path).collect(),
        }
    }

    /// Judges whether a container is there.
    ///
    /// An interface proves life, unless the runtime does not know it and no process is in its
    /// sandbox. So does the namespace that was noted, unless it was seen to lack the interface.
    /// Without a note of it, only a runtime that does not list the attachment makes it gone.
    pub fn judge(&self, evidence: &Evidence<'_>) -> Life {
        match (evidence.interface, evidence.runtime) {
            (Interface::Missing, _) | (Interface::HalfMade, Runtime::DoesNotList) => {
                return Life::Unwired;
            }
            (Interface::There, Runtime::DoesNotList) if self.is_deserted(evidence) => {
                return Life::Deserted;
            }
            (Interface::There | Interface::HalfMade, _) | (_, Runtime::Lists) => {
                return Life::Alive;
            }
            (Interface::Unseen, _) => {}
        }
        match evidence.sandbox.and_then(|sandbox| Some((sandbox, sandbox.identity?))) {
            Some((sandbox, noted)) if self.has(sandbox, noted) => Life::Alive,
            Some(_) => Life::Gone,
            None if evidence.runtime == Runtime::DoesNotList => Life::Gone,
            None => Life::Unknown,
        }
    }

    /// Returns whether no process has been seen in the container's namespace, which is older than
    /// the time that a runtime takes to start one. Its path may keep it.
    pub fn is_deserted(&self, evidence: &Evidence<'_>) -> bool {
        let noted = evidence.sandbox.and_then(|sandbox| sandbox.identity);
        let processes = self.processes.as_ref().filter(|_| self.all_processes);
        evidence.age >= DESERTED_AFTER
            && noted.is_some_and(|noted| processes.is_some_and(|all| !all.contains(&noted)))
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
    fn a_living_sandbox_without_the_interface_is_unwired_whatever_the_runtime_lists() {
        let own = own();
        for runtime in [Runtime::Silent, Runtime::Lists, Runtime::DoesNotList] {
            let evidence = Evidence { interface: Interface::Missing, runtime, ..of(&own) };
            assert_eq!(judge(&[], evidence), Life::Unwired);
        }
    }

    #[test]
    fn a_half_made_interface_is_left_over_only_if_the_runtime_does_not_list_it() {
        let own = own();
        for (runtime, life) in [
            (Runtime::Silent, Life::Alive),
            (Runtime::Lists, Life::Alive),
            (Runtime::DoesNotList, Life::Unwired),
        ] {
            let evidence = Evidence { interface: Interface::HalfMade, runtime, ..of(&own) };
            assert_eq!(judge(&[], evidence), life);
        }
    }

    #[test]
    fn an_interface_is_deserted_only_if_unlisted_old_and_without_a_process() {
        let empty = at_no_path(Some(Inode::new(1, 1)));
        let (interface, runtime) = (Interface::There, Runtime::DoesNotList);
        let old = Evidence { interface, runtime, age: DESERTED_AFTER, ..of(&empty) };
        assert_eq!(judge(&[], old), Life::Deserted);
        let young = Evidence { age: Duration::from_secs(299), ..old };
        assert_eq!(judge(&[], young), Life::Alive);
        for runtime in [Runtime::Silent, Runtime::Lists] {
            assert_eq!(judge(&[], Evidence { runtime, ..old }), Life::Alive);
        }
        let own = own();
        assert_eq!(judge(&[], Evidence { sandbox: Some(&own), ..old }), Life::Alive);
        assert_eq!(judge(&[], Evidence { sandbox: None, ..old }), Life::Alive);
    }

    #[test]
    fn a_host_end_and_a_runtime_that_lists_it_prove_life() {
        let gone = at_no_path(Some(Inode::new(1, 1)));
        let listed = Evidence { runtime: Runtime::Lists, ..of(&gone) };
        assert_eq!(judge(&[], listed), Life::Alive);
        let (interface, runtime) = (Interface::There, Runtime::DoesNotList);
        let wired = Evidence { interface, runtime, ..of(&gone) };
        assert_eq!(judge(&[], wired), Life::Alive);
        let own = own();
        let unlisted = Evidence { runtime: Runtime::DoesNotList, ..of(&own) };
        assert_eq!(judge(&[], unlisted), Life::Alive, "another runtime may have it");
    }
}
