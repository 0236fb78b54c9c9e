//! Runs `nft`, which may not keep its caller for ever.
//!
//! Input and output are files in memory, so that neither side waits for the other to read, and the
//! only thing to wait for is the end of the process.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::netlink::wait;

/// Time within which `nft` must answer. It takes some 10 ms; more if other programs hold the
/// kernel's lock of all tables.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a killed process to end. One that is in the kernel ends only when that lets it.
const END: Duration = Duration::from_millis(500);

/// Pause between two looks for the end of a process that has closed its output.
const PAUSE: Duration = Duration::from_millis(1);

/// The output of `nft`.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs `program`, which is `nft` but in tests, with `input` on its standard input. An error says what
/// happened and what to do.
pub(super) fn run(
    program: &str,
    arguments: &[&str],
    input: &[u8],
    timeout: Duration,
) -> Result<Output, String> {
    let failed = |error: io::Error| format!("run {program}: {error}");
    let mut stdin = memory().map_err(failed)?;
    stdin.write_all(input).and_then(|()| stdin.rewind()).map_err(failed)?;
    let mut stdout = memory().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(stdin).stderr(Stdio::piped());
    command.stdout(stdout.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("run {program}: {error}; install the package nftables"),
        _ => format!("run {program}: {error}"),
    })?;
    // The command holds the other ends of what it gave the child.
    drop(command);
    let mut stderr = vec![];
    let deadline = Instant::now() + timeout;
    let Some(status) = finish(&mut child, &mut stderr, deadline).map_err(failed)? else {
        end(child);
        return Err(format!(
            "{program} did not answer within {} s and was killed; see with `ps` and \
             `{program} list tables` whether another program keeps nftables busy",
            timeout.as_secs_f32()
        ));
    };
    let mut output = vec![];
    stdout.rewind().and_then(|()| stdout.read_to_end(&mut output)).map_err(failed)?;
    let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
    Ok(Output { success: status.success(), stdout: output, stderr })
}

/// Reads the errors of `child` and waits for its end; none if it has not ended by `deadline`.
fn finish(
    child: &mut Child,
    errors: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let mut stderr = child.stderr.take();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        if let Some(pipe) = &mut stderr {
            let mut descriptors = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            wait(&mut descriptors, left)?;
            let ready = descriptors[0].revents().is_some_and(|events| !events.is_empty());
            let mut buffer = [0; 4096];
            if ready {
                match pipe.read(&mut buffer)? {
                    0 => stderr = None,
                    length => errors.extend(&buffer[..length]),
                }
            }
        } else if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        } else {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Kills `child` and waits for its end; if it does not end, on a thread that does nothing else.
fn end(mut child: Child) {
    let _ = child.kill();
    let deadline = Instant::now() + END;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    let reaper = std::thread::Builder::new().name("nft-reaper".into());
    let _ = reaper.spawn(move || child.wait());
}

/// A file in memory, closed in other programs.
fn memory() -> io::Result<File> {
    Ok(memfd_create(c"nft", MFdFlags::MFD_CLOEXEC)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_both_outputs_and_success() {
        let script = ["-c", "cat; echo bad >&2; exit 3"];
        let long = vec![b'x'; 1 << 20];
        let output = run("sh", &script, &long, TIMEOUT).unwrap();
        assert!(!output.success);
        assert_eq!((output.stdout.len(), output.stderr.as_str()), (1 << 20, "bad"));
        assert!(run("sh", &["-c", "exit 0"], &[], TIMEOUT).unwrap().success);
    }

    #[test]
    fn kills_program_that_does_not_answer() {
        let started = Instant::now();
        let limit = Duration::from_millis(200);
        for script in ["sleep 60 2>&-", "exec sleep 60", "exec 2>&-; exec sleep 60"] {
            let error = run("sh", &["-c", script], &[], limit).unwrap_err();
            assert!(error.contains("did not answer within 0.2 s and was killed"), "{error}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn names_missing_package() {
        let error = run("/nonexistent/nft", &[], &[], TIMEOUT).unwrap_err();
        assert!(error.contains("install the package nftables"), "{error}");
    }
}
