//! The process as the runtime starts it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Returns whether `found` becomes true of the directory of the plugin, which waits for its
/// configuration, in `/proc`.
fn wait_for(plugin: &Child, found: impl Fn(&Path) -> bool) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", plugin.id()));
    let started = Instant::now();
    while !found(&proc) {
        if started.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn start(redirection: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("exec \"$0\" {redirection}"), env!("CARGO_BIN_EXE_weft")])
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(mut plugin: Child) -> std::process::Output {
    drop(plugin.stdin.take());
    plugin.wait_with_output().unwrap()
}

#[test]
fn closed_standard_output_is_no_file_of_the_plugin() {
    let plugin = start(">&-");
    let is_null = |proc: &Path| {
        std::fs::read_link(proc.join("fd/1")).is_ok_and(|target| target == Path::new("/dev/null"))
    };
    let replaced = wait_for(&plugin, is_null);
    end(plugin);
    assert!(replaced);
}

#[test]
fn broken_pipe_does_not_kill_the_plugin() {
    const SIGPIPE: u32 = 13;
    let plugin = start("");
    let ignores = |proc: &Path| {
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & (1 << (SIGPIPE - 1)) != 0)
    };
    let survives = wait_for(&plugin, ignores);
    end(plugin);
    assert!(survives);
}

#[test]
fn prints_its_answer_and_succeeds() {
    let output = end(start(""));
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("supportedVersions") && printed.ends_with('\n'), "{printed}");
}

#[test]
fn failure_is_the_exit_status() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let output = command.env("CNI_COMMAND", "SING").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
