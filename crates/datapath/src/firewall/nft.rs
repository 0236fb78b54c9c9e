//! Runs `nft`, which may not keep its caller for ever.
//!
//! Input and output are files in memory, so that neither side waits for the other to read, and the
//! only thing to wait for is the end of the process.
//!
//! `nftables::helper` runs `nft` too, but waits without a limit, and kills nothing.

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

/// Time to collect the end of a process that is waited for only after its time.
const GRACE: Duration = Duration::from_millis(100);

/// Pause between two looks for the end of a process that has closed its output.
const PAUSE: Duration = Duration::from_millis(1);

/// The output of `nft`.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs `program`, which is `nft` but in tests, with `input` on its standard input. An error says
/// what happened and what to do.
pub(super) fn run(
    program: &'static str,
    arguments: &[&str],
    input: &[u8],
    timeout: Duration,
) -> Result<Output, String> {
    Running::start(program, arguments, input, timeout)?.wait()
}

/// A program that runs. Dropped before it has been waited for, it is killed: `nft` gives all of its
/// commands to the kernel as one transaction, so that either all of them take effect or none.
#[derive(Debug)]
pub(super) struct Running {
    program: &'static str,
    /// None once it has been waited for.
    child: Option<Child>,
    stdout: File,
    deadline: Instant,
    timeout: Duration,
}

impl Running {
    /// Starts `program` as [`run`] does, and does not wait for it. Its time runs from now on.
    pub(super) fn start(
        program: &'static str,
        arguments: &[&str],
        input: &[u8],
        timeout: Duration,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("run {program}: {error}");
        let mut stdin = memory().map_err(failed)?;
        stdin.write_all(input).and_then(|()| stdin.rewind()).map_err(failed)?;
        let stdout = memory().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(stdin).stderr(Stdio::piped());
        command.stdout(stdout.try_clone().map_err(failed)?);
        let deadline = Instant::now() + timeout;
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("run {program}: {error}; install the package nftables")
            }
            _ => format!("run {program}: {error}"),
        })?;
        // The other ends of what the child was given are closed here, with `command`.
        Ok(Self { program, child: Some(child), stdout, deadline, timeout })
    }

    /// The output of the program, once it has ended. It is killed if it has not ended in time.
    pub(super) fn wait(mut self) -> Result<Output, String> {
        let program = self.program;
        let failed = |error: io::Error| format!("run {program}: {error}");
        let mut stderr = vec![];
        // A program that ended in time has done so too if it is asked about late.
        let deadline = self.deadline.max(Instant::now() + GRACE);
        let Some(child) = &mut self.child else { return Err(format!("run {program}: it ended")) };
        let Some(status) = finish(child, &mut stderr, deadline).map_err(failed)? else {
            return Err(format!(
                "{program} did not answer within {} s and was killed; see with `ps` and \
                 `{program} list tables` whether another program keeps nftables busy",
                self.timeout.as_secs_f32()
            ));
        };
        self.child = None;
        let mut output = vec![];
        self.stdout.rewind().and_then(|()| self.stdout.read_to_end(&mut output)).map_err(failed)?;
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Ok(Output { success: status.success(), stdout: output, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(child);
        }
    }
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

    fn shell(script: &str, timeout: Duration) -> (Running, u32) {
        let running = Running::start("sh", &["-c", script], &[], timeout).unwrap();
        let pid = running.child.as_ref().unwrap().id();
        (running, pid)
    }

    #[test]
    fn start_returns_while_program_runs() {
        let started = Instant::now();
        let (running, _) = shell("sleep 1; echo done", TIMEOUT);
        assert!(started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
        assert_eq!(running.wait().unwrap().stdout, b"done\n");
        assert!(started.elapsed() >= Duration::from_secs(1));
    }

    #[test]
    fn program_that_ended_in_time_may_be_waited_for_late() {
        let (running, _) = shell("echo done; echo bad >&2", Duration::from_millis(800));
        std::thread::sleep(Duration::from_secs(1));
        let output = running.wait().unwrap();
        assert_eq!((output.stdout, output.stderr), (b"done\n".to_vec(), "bad".to_owned()));
    }

    #[test]
    fn dropped_program_leaves_no_process() {
        let started = Instant::now();
        for script in ["exec sleep 60", "true"] {
            let (running, pid) = shell(script, TIMEOUT);
            let process = std::path::PathBuf::from(format!("/proc/{pid}"));
            assert!(process.exists());
            drop(running);
            assert!(!process.exists(), "{script}: process {pid} or its zombie is left");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn names_missing_package() {
        let error = run("/nonexistent/nft", &[], &[], TIMEOUT).unwrap_err();
        assert!(error.contains("install the package nftables"), "{error}");
    }
}
