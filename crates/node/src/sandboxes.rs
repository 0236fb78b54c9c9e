//! Whether a container's network namespace is still there.

use std::os::unix::fs::MetadataExt;

use weft_blocks::Sandbox;

/// Whether the very namespace that was noted lives on: at its path, or in some process. Where that
/// can't be told it does.
pub fn lives(sandbox: &Sandbox) -> bool {
    let Some(noted) = sandbox.identity else { return true };
    let now = Sandbox::observe(&sandbox.netns);
    now.identity == Some(noted) || is_in_use(noted)
}

/// Whether some process is in the namespace.
fn is_in_use(identity: (u64, u64)) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        let is_process =
            process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
        is_process
            && std::fs::metadata(process.path().join("ns/net"))
                .is_ok_and(|meta| (meta.dev(), meta.ino()) == identity)
    })
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
        assert!(!lives(&Sandbox { netns: "/nonexistent".into(), identity: Some((1, 1)) }));
        assert!(lives(&Sandbox { netns: "/nonexistent".into(), identity: None }));
    }
}
