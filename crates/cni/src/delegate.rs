//! Running another plugin (specification, section 4).
//!
//! Starting a process and handing it its configuration are two steps, because the first takes time
//! that the caller can use: a delegate that was [started](Delegate::spawn) waits on its standard
//! input until it is [sent](Running::send) something.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::env::{Environment, Verb};
use crate::error::{CniError, code};
use crate::result::CniResult;
use crate::version::Version;

/// Attempts to start a program whose file is just being replaced, and the pause between them.
const BUSY_TRIES: usize = 20;
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// A plugin on disk.
#[derive(Debug, Clone)]
pub struct Delegate {
    name: String,
    program: PathBuf,
    /// Device and inode of the program.
    identity: (u64, u64),
}

/// A plugin's process.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Option<Child>,
    stdin: Option<ChildStdin>,
}

impl Delegate {
    /// Looks for plugin `name` in the directories of `CNI_PATH`, in their order.
    pub fn find(name: &str, environment: &Environment) -> Result<Self, CniError> {
        if name.is_empty() || name.contains('/') {
            let msg = format!("plugin type {name:?}: expected a file name without '/'");
            return Err(CniError::new(code::INVALID_CONFIG, msg));
        }
        let program = |path: PathBuf| {
            let meta = path.metadata().ok()?;
            let runs = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
            runs.then(|| Self { name: name.to_owned(), program: path, identity: identity(&meta) })
        };
        let mut candidates = environment.path().iter().map(|dir| dir.join(name));
        match candidates.find_map(program) {
            Some(delegate) => Ok(delegate),
            None => {
                let dirs: Vec<String> =
                    environment.path().iter().map(|dir| dir.display().to_string()).collect();
                let msg = format!(
                    "failed to find plugin {name:?} in path [{}]; install it in one of those of \
                     CNI_PATH",
                    dirs.join(" ")
                );
                Err(CniError::new(code::INVALID_ENVIRONMENT, msg))
            }
        }
    }

    /// Returns whether the plugin is the very file that this process runs, by whatever name: what
    /// it would do can be done here. A copy of it, or another build, is not.
    pub fn is_this_program(&self) -> bool {
        std::fs::metadata("/proc/self/exe").is_ok_and(|own| identity(&own) == self.identity)
    }

    /// Starts the plugin for `verb`, with the caller's environment otherwise. What it writes to
    /// standard error goes where this process's does.
    pub fn spawn(&self, verb: Verb) -> Result<Running, CniError> {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if std::env::var_os("CNI_COMMAND").is_none_or(|current| current != verb.as_str()) {
            command.env("CNI_COMMAND", verb.as_str());
        }
        end_with_caller(&mut command);
        let mut tries = 0;
        loop {
            match command.spawn() {
                Ok(mut child) => {
                    let stdin = child.stdin.take();
                    return Ok(Running { name: self.name.clone(), child: Some(child), stdin });
                }
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
                {
                    tries += 1;
                    std::thread::sleep(BUSY_WAIT);
                }
                Err(error) => {
                    let msg = format!("start plugin {}: {error}", self.program.display());
                    return Err(CniError::new(code::IO_FAILURE, msg));
                }
            }
        }
    }
}

/// Has the kernel kill the program when this thread ends, which it does with the process. A plugin
/// that outlived its killed caller would reserve an address after the DEL that the runtime sent
/// instead.
#[expect(unsafe_code, reason = "system calls between fork(2) and execve(2)")]
fn end_with_caller(command: &mut Command) {
    let caller = nix::unistd::getpid();
    let attach = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have ended before.
        if nix::unistd::getppid() == caller { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: prctl(2) and getppid(2) alone, which take no lock and allocate nothing.
    unsafe { command.pre_exec(attach) };
}

fn identity(meta: &std::fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

impl Running {
    /// Hands over the configuration; the plugin gets to work.
    pub fn send(&mut self, config: &[u8]) -> Result<(), CniError> {
        let Some(mut stdin) = self.stdin.take() else { return Ok(()) };
        match stdin.write_all(config) {
            Ok(()) => Ok(()),
            // It may have failed before it read anything; what it says matters more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => {
                let msg = format!("send plugin {} its configuration: {error}", self.name);
                Err(CniError::new(code::IO_FAILURE, msg))
            }
        }
    }

    /// Waits for the end of a verb that has no result.
    pub fn wait(self) -> Result<(), CniError> {
        self.finish().map(drop)
    }

    /// Waits for the result. One that does not say its version is of `assumed`, the
    /// configuration's.
    pub fn wait_result(self, assumed: Version) -> Result<CniResult, CniError> {
        let name = self.name.clone();
        let stdout = self.finish()?;
        let broken = |error: String| {
            CniError::new(code::DELEGATE, format!("plugin {name} printed no result: {error}"))
        };
        let value: Value =
            serde_json::from_slice(&stdout).map_err(|error| broken(error.to_string()))?;
        if value.is_null() {
            return Ok(CniResult::default());
        }
        CniResult::parse(&value, assumed).map_err(broken)
    }

    /// The plugin's output, or its error, word for word.
    fn finish(mut self) -> Result<Vec<u8>, CniError> {
        drop(self.stdin.take());
        let Some(child) = self.child.take() else { return Ok(vec![]) };
        let output = child.wait_with_output().map_err(|error| {
            CniError::new(code::IO_FAILURE, format!("wait for plugin {}: {error}", self.name))
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(reported(&output.stdout).unwrap_or_else(|| {
            let msg = format!("plugin {} failed without saying why ({})", self.name, output.status);
            let printed =
                String::from_utf8_lossy(&output.stdout).chars().take(300).collect::<String>();
            CniError::new(code::DELEGATE, msg).with_details(printed)
        }))
    }
}

/// The error that a plugin printed.
fn reported(stdout: &[u8]) -> Option<CniError> {
    let value: Value = serde_json::from_slice(stdout).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
    Some(CniError { code, msg: text("msg"), details: text("details") })
}

/// A plugin that was started and never sent anything must not live on.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn environment(dir: &Path) -> Environment {
        let get = |name: &str| match name {
            "CNI_COMMAND" => Some(OsString::from("STATUS")),
            "CNI_PATH" => Some(format!("/nonexistent:{}", dir.display()).into()),
            _ => None,
        };
        Environment::read(get).unwrap().unwrap()
    }

    /// A plugin that is a shell script.
    fn script(text: &str) -> (tempfile::TempDir, Delegate) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let delegate = Delegate::find("other", &environment(dir.path())).unwrap();
        (dir, delegate)
    }

    #[test]
    fn a_plugin_that_is_nowhere_is_looked_for_where_the_error_says() {
        let dir = tempfile::tempdir().unwrap();
        let error = Delegate::find("other", &environment(dir.path())).unwrap_err();
        assert!(error.msg.contains("/nonexistent") && error.msg.contains("other"), "{error}");
        assert_eq!(Delegate::find("../sh", &environment(dir.path())).unwrap_err().code, 7);
        fs::write(dir.path().join("plain"), "no program").unwrap();
        assert!(Delegate::find("plain", &environment(dir.path())).is_err());
    }

    #[test]
    fn recognises_its_own_program_by_any_link_and_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let find = || Delegate::find("other", &environment(dir.path())).unwrap();
        std::os::unix::fs::symlink(&own, dir.path().join("other")).unwrap();
        assert!(find().is_this_program());
        fs::remove_file(dir.path().join("other")).unwrap();
        fs::copy(&own, dir.path().join("other")).unwrap();
        assert!(!find().is_this_program());
    }

    #[test]
    fn the_verb_the_configuration_and_the_result_go_through() {
        let (_dir, delegate) = script(
            r#"test "$CNI_COMMAND" = ADD && read -r conf && test "$conf" = '{"a":1}' &&
               echo '{"ip4":{"ip":"10.9.0.5/16"}}'"#,
        );
        let mut running = delegate.spawn(Verb::Add).unwrap();
        running.send(b"{\"a\":1}\n").unwrap();
        let result = running.wait_result(Version::V0_2_0).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.9.0.5/16");
    }

    #[test]
    fn its_error_is_passed_on_word_for_word() {
        let (_dir, delegate) = script(r#"echo '{"code":11,"msg":"later","details":"d"}'; exit 1"#);
        let mut running = delegate.spawn(Verb::Del).unwrap();
        running.send(b"{}").unwrap();
        let error = running.wait().unwrap_err();
        assert_eq!(error, CniError::new(11, "later").with_details("d"));
    }

    #[test]
    fn a_plugin_that_breaks_the_protocol_is_named() {
        for (text, verb) in
            [("exit 3", Verb::Del), ("kill -9 $$", Verb::Del), ("echo x", Verb::Add)]
        {
            let (_dir, delegate) = script(text);
            let mut running = delegate.spawn(verb).unwrap();
            running.send(b"{}").unwrap();
            let error = running.wait_result(Version::V1_0_0).unwrap_err();
            assert_eq!(error.code, code::DELEGATE);
            assert!(error.msg.contains("plugin other"), "{error}");
        }
    }

    #[test]
    fn a_plugin_that_was_never_sent_anything_does_not_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let (_dir, delegate) = script(&format!("sleep 5; touch {}", mark.display()));
        let running = delegate.spawn(Verb::Del).unwrap();
        let pid = running.child.as_ref().unwrap().id();
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!mark.exists());
    }

    #[test]
    fn a_plugin_ends_with_its_caller() {
        let (_dir, delegate) = script("sleep 60");
        // The kernel's signal comes with the end of the thread that forked.
        let thread = std::thread::spawn(move || {
            let running = delegate.spawn(Verb::Add).unwrap();
            let pid = running.child.as_ref().unwrap().id();
            std::mem::forget(running);
            pid
        });
        let pid = nix::unistd::Pid::from_raw(thread.join().unwrap().cast_signed());
        let ended = nix::sys::wait::waitpid(pid, None).unwrap();
        assert!(matches!(ended, nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)));
    }
}
