//! Commands of other programs, for what is prepared and not measured.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a command line, split at spaces, and returns what it printed. It must succeed.
pub(crate) fn run(line: &str) -> Result<String> {
    let output = command(line)?.output().with_context(|| format!("can't run {line}"))?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs command lines, one after the other.
pub(crate) fn run_all(lines: &str) -> Result<()> {
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .try_for_each(|line| run(line).map(drop))
}

/// A program that runs beside this one until it is dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts a command line, split at spaces; what it prints is thrown away.
    pub(crate) fn start(line: &str) -> Result<Self> {
        let mut command = mortal(line)?;
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("can't run {line}"))?))
    }

    /// Starts a command line, split at spaces; what it prints goes to the file `log`.
    pub(crate) fn start_with_log(line: &str, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        let mut command = mortal(line)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("can't run {line}"))?))
    }

    /// Id of the process; with `ip netns exec` in front, of the program behind it.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(line: &str) -> Result<Command> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().context("empty command")?);
    command.args(words);
    Ok(command)
}

/// A command that the kernel kills when this program ends, by whatever end (`PR_SET_PDEATHSIG`).
fn mortal(line: &str) -> Result<Command> {
    command(&format!("setpriv --pdeathsig KILL {line}"))
}
