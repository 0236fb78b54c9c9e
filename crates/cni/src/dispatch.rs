//! From a process's input to its output.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use serde_json::{Value, json};

use crate::env::{Environment, Verb};
use crate::error::{CniError, code};
use crate::request::Request;
use crate::result::CniResult;
use crate::version::Version;

/// A CNI plugin.
pub trait Plugin {
    /// The plugin's name.
    fn name(&self) -> &'static str;

    /// ADD.
    fn add(&self, request: &Request) -> Result<CniResult, CniError>;

    /// DEL.
    fn del(&self, request: &Request) -> Result<(), CniError>;

    /// CHECK; only versions that have it come here.
    fn check(&self, request: &Request) -> Result<(), CniError>;

    /// GC; only versions that have it come here.
    fn gc(&self, request: &Request) -> Result<(), CniError>;

    /// STATUS; only versions that have it come here.
    fn status(&self, request: &Request) -> Result<(), CniError>;

    /// Takes back an ADD that succeeded and whose result cannot be handed over. By default nothing
    /// is done: an ADD that gives what the caller has already must not be taken back.
    fn take_back(&self, request: &Request) {
        let _ = request;
    }
}

/// Output of a plugin's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// One JSON document, or nothing.
    pub stdout: String,
    /// For people.
    pub stderr: String,
    /// True if it succeeded.
    pub success: bool,
}

/// Runs `plugin` as this process: reads environment and standard input, writes the one document
/// that belongs on standard output, and says how to exit.
pub fn run(plugin: &dyn Plugin) -> ExitCode {
    let (output, added) = answer(plugin, Environment::read(|name| std::env::var_os(name)), || {
        let mut stdin = vec![];
        std::io::stdin().lock().read_to_end(&mut stdin).map(|_| stdin)
    });
    if !output.stderr.is_empty() {
        eprint!("{}", output.stderr);
    }
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(output.stdout.as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = written {
        let name = plugin.name();
        eprint!("{name}: write the answer to standard output: {error}: {}", output.stdout);
        // The caller knows of no interface and no address, and may never call DEL.
        if let Some(request) = added {
            plugin.take_back(&request);
        }
        return ExitCode::FAILURE;
    }
    if output.success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Answers a call.
pub fn handle(
    plugin: &dyn Plugin,
    environment: Result<Option<Environment>, CniError>,
    read_stdin: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> Output {
    answer(plugin, environment, read_stdin).0
}

/// Answers a call; an ADD that succeeded comes back, for the case that the answer gets lost.
fn answer(
    plugin: &dyn Plugin,
    environment: Result<Option<Environment>, CniError>,
    read_stdin: impl FnOnce() -> std::io::Result<Vec<u8>>,
) -> (Output, Option<Request>) {
    let environment = match environment {
        Ok(None) => return (about(plugin), None),
        Ok(Some(environment)) => environment,
        Err(error) => {
            let stdin = read_stdin().unwrap_or_default();
            return (failure(&error, &spoken_version(&stdin)), None);
        }
    };
    if environment.verb() == Verb::Version {
        return (version(&read_stdin().unwrap_or_default()), None);
    }
    let stdin = match read_stdin() {
        Ok(stdin) => stdin,
        Err(error) => {
            let msg = format!("read the network configuration from standard input: {error}");
            let error = CniError::new(code::IO_FAILURE, msg);
            return (failure(&error, Version::NEWEST.as_str()), None);
        }
    };
    let version = spoken_version(&stdin);
    let request = match Request::new(environment, stdin) {
        Ok(request) => request,
        Err(error) => return (failure(&error, &version), None),
    };
    let panicked = |_| Err(bug(plugin));
    let performed = catch_unwind(AssertUnwindSafe(|| perform(plugin, &request)));
    match performed.unwrap_or_else(panicked) {
        Ok(document) => {
            let stdout = document.map(|document| format!("{document}\n")).unwrap_or_default();
            let output = Output { stdout, stderr: String::new(), success: true };
            (output, Some(request).filter(|request| request.verb() == Verb::Add))
        }
        Err(error) => (failure(&error, &version), None),
    }
}

/// Runs the verb. What it returns, if anything, goes to standard output.
fn perform(plugin: &dyn Plugin, request: &Request) -> Result<Option<Value>, CniError> {
    let since = |version: Version| {
        if request.version() >= version {
            return Ok(());
        }
        Err(CniError::new(
            code::INCOMPATIBLE_VERSION,
            format!(
                "config version {} does not allow {}, which came with {version}",
                request.version(),
                request.verb()
            ),
        ))
    };
    match request.verb() {
        Verb::Add => {
            let result = plugin.add(request)?;
            return match result.render(request.version()) {
                Ok(document) => Ok(Some(document)),
                Err(error) => {
                    plugin.take_back(request);
                    let msg = format!("print the result: {error}");
                    Err(CniError::new(code::INCOMPATIBLE_VERSION, msg))
                }
            };
        }
        Verb::Del => plugin.del(request)?,
        Verb::Check => {
            since(Version::V0_4_0)?;
            plugin.check(request)?;
        }
        Verb::Gc => {
            since(Version::V1_1_0)?;
            plugin.gc(request)?;
        }
        Verb::Status => {
            since(Version::V1_1_0)?;
            plugin.status(request)?;
        }
        Verb::Version => {}
    }
    Ok(None)
}

/// Runs a verb of `plugin` inside of another plugin's process. A panic of it becomes the error that
/// its own process would print.
pub async fn guarded<T>(
    plugin: &dyn Plugin,
    verb: impl Future<Output = Result<T, CniError>>,
) -> Result<T, CniError> {
    let mut verb = pin!(verb);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| verb.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(bug(plugin))))
    })
    .await
}

/// Returns whether this process was started under `name`, in whatever folder.
pub fn called_as(name: &str) -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().is_some_and(|last| last == name)
}

fn bug(plugin: &dyn Plugin) -> CniError {
    let msg = format!(
        "{} met a bug of its own; its place is on standard error, please report it",
        plugin.name()
    );
    CniError::new(code::BUG, msg)
}

fn failure(error: &CniError, version: &str) -> Output {
    let stdout = format!("{}\n", error.to_json(version));
    Output { stdout, stderr: String::new(), success: false }
}

/// For somebody who runs the plugin by hand.
fn about(plugin: &dyn Plugin) -> Output {
    let versions = Version::supported().join(", ");
    let stderr = format!(
        "CNI plugin {} v{}\nCNI protocol versions supported: {versions}\n",
        plugin.name(),
        env!("CARGO_PKG_VERSION")
    );
    Output { stdout: String::new(), stderr, success: true }
}

fn version(stdin: &[u8]) -> Output {
    let document = json!({
        "cniVersion": spoken_version(stdin),
        "supportedVersions": Version::supported(),
    });
    Output { stdout: format!("{document}\n"), stderr: String::new(), success: true }
}

/// The version to answer in, as far as the input says.
fn spoken_version(stdin: &[u8]) -> String {
    let config: Value = serde_json::from_slice(stdin).unwrap_or_default();
    match config.get("cniVersion").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => Version::NEWEST.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests;
