//! Calls of a CNI plugin as a runtime makes them, timed from its start to its end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::sandbox::Sandbox;

/// A CNI plugin with the network configuration that it is called with.
pub(crate) struct Plugin {
    /// Name in reports.
    pub name: &'static str,
    /// Folder of the plugin and of the IPAM plugin that it delegates to: `CNI_PATH`.
    pub folder: PathBuf,
    /// Network configuration; its `type` names the program.
    pub conf: Value,
    /// Network namespace of the host that the call is made on; none: that of this process.
    pub host: Option<String>,
    /// Node configuration of weft.
    pub node_config: Option<PathBuf>,
}

/// A finished call.
pub(crate) struct Call {
    /// Time from before the start of the plugin to its exit.
    pub took: Duration,
    /// Its standard output.
    pub result: Value,
}

impl Plugin {
    /// Calls the plugin for interface `eth0` of the sandbox. The call must succeed.
    pub(crate) fn call(&self, verb: &str, sandbox: &Sandbox) -> Result<Call> {
        let program =
            self.folder.join(self.conf["type"].as_str().context("configuration without a type")?);
        let input = self.conf.to_string();
        let mut command = self.command(&program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &sandbox.name)
            .env("CNI_NETNS", &sandbox.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let started = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("can't start {}", program.display()))?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = started.elapsed();
        if !output.status.success() {
            bail!("{verb} of {} failed: {}", self.name, String::from_utf8_lossy(&output.stdout));
        }
        let result = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout)?
        };
        Ok(Call { took, result })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.host {
            None => Command::new(program),
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host]).arg(program);
                command
            }
        };
        if let Some(config) = &self.node_config {
            command.env("WEFT_CONFIG", config);
        }
        command
    }
}
