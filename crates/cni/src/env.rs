//! The parameters that a runtime passes in the environment (specification, section 2).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::error::{CniError, code};

/// The runtime's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Check that an attachment is as it was made.
    Check,
    /// Collect what belongs to no attachment.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    /// The verb as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|verb| verb.as_str() == text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parameters, checked as far as the verb asks for them. What a verb has no use for is kept as
/// it came: runtimes fill in placeholders.
#[derive(Debug, Clone)]
pub struct Environment {
    verb: Verb,
    container_id: String,
    netns: String,
    ifname: String,
    args: BTreeMap<String, String>,
    path: Vec<PathBuf>,
    netns_override: bool,
}

impl Environment {
    /// Reads the parameters by way of `variable`. `Ok(None)` if there is no verb: no runtime
    /// is calling.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, CniError> {
        let text = |name: &str| match variable(name) {
            None => Ok(String::new()),
            Some(value) => value
                .into_string()
                .map_err(|value| invalid(format!("{name} is not text: {}", value.display()))),
        };
        let command = text("CNI_COMMAND")?;
        if command.is_empty() {
            return Ok(None);
        }
        let verb = Verb::parse(&command)
            .ok_or_else(|| invalid(format!("unknown CNI_COMMAND: {command}")))?;
        // A probe for the version carries placeholders and must be answered whatever they are.
        if verb == Verb::Version {
            return Ok(Some(Self::bare(verb)));
        }
        let path = variable("CNI_PATH").unwrap_or_default();
        let environment = Self {
            verb,
            container_id: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            ifname: text("CNI_IFNAME")?,
            args: parse_args(&text("CNI_ARGS")?)?,
            path: std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()).collect(),
            netns_override: matches!(
                text("CNI_NETNS_OVERRIDE")?.to_ascii_uppercase().as_str(),
                "1" | "TRUE"
            ),
        };
        environment.check()?;
        Ok(Some(environment))
    }

    fn bare(verb: Verb) -> Self {
        Self {
            verb,
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            args: BTreeMap::new(),
            path: vec![],
            netns_override: false,
        }
    }

    /// Checks what the verb needs. All that is missing is named at once.
    fn check(&self) -> Result<(), CniError> {
        let attachment = matches!(self.verb, Verb::Add | Verb::Del | Verb::Check);
        let sandbox = matches!(self.verb, Verb::Add | Verb::Check);
        let missing: Vec<&str> = [
            ("CNI_CONTAINERID", attachment && self.container_id.is_empty()),
            ("CNI_NETNS", sandbox && self.netns.is_empty()),
            ("CNI_IFNAME", attachment && self.ifname.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            return Err(invalid(format!("required env variables [{}] missing", missing.join(","))));
        }
        if attachment {
            check_container_id(&self.container_id)?;
            check_ifname(&self.ifname)?;
        }
        Ok(())
    }

    /// The same parameters for another verb.
    #[must_use]
    pub fn with_verb(&self, verb: Verb) -> Self {
        Self { verb, ..self.clone() }
    }

    /// The runtime's request.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// `CNI_CONTAINERID`; empty for verbs without an attachment.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// `CNI_NETNS`, unless it is empty, as it may be on DEL.
    pub fn netns(&self) -> Option<&str> {
        Some(self.netns.as_str()).filter(|netns| !netns.is_empty())
    }

    /// `CNI_IFNAME`; empty for verbs without an attachment.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// A key of `CNI_ARGS`.
    pub fn arg(&self, key: &str) -> Option<&str> {
        self.args.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The directories of `CNI_PATH`.
    pub fn path(&self) -> &[PathBuf] {
        &self.path
    }

    /// True if the caller allows the plugin's own network namespace as the sandbox.
    pub fn allows_own_netns(&self) -> bool {
        self.netns_override
    }
}

fn invalid(msg: String) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, msg)
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    let valid = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if valid {
        return Ok(());
    }
    Err(invalid(format!(
        "invalid characters in containerID: CNI_CONTAINERID {id:?} must begin with a letter or \
         digit and go on with those, '_', '.' or '-'"
    )))
}

fn check_ifname(name: &str) -> Result<(), CniError> {
    let reason = if name.len() > 15 {
        "it is longer than 15 characters"
    } else if name == "." || name == ".." {
        "the kernel keeps this name for itself"
    } else if name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace()) {
        "'/', ':' and blanks are not allowed"
    } else if name.contains('%') {
        "the kernel takes '%' for the place of a number"
    } else {
        return Ok(());
    };
    Err(invalid(format!("invalid CNI_IFNAME {name:?}: {reason}")))
}

/// `K=V;K2=V2`. Keys that nobody here knows are kept: other plugins of the chain may.
fn parse_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let mut args = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) if !value.contains('=') => {
                args.insert(key.to_owned(), value.to_owned());
            }
            _ => return Err(invalid(format!("CNI_ARGS: invalid pair {pair:?}"))),
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Environment>, CniError> {
        Environment::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        let error = read(pairs).unwrap_err();
        assert_eq!(error.code, code::INVALID_ENVIRONMENT);
        error.msg
    }

    #[test]
    fn names_everything_that_is_missing_at_once() {
        assert_eq!(
            refusal(&[("CNI_COMMAND", "ADD")]),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
        );
        assert_eq!(
            refusal(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", ""), ("CNI_IFNAME", "eth0")]),
            "required env variables [CNI_CONTAINERID] missing"
        );
        for verb in ["GC", "STATUS"] {
            assert!(read(&[("CNI_COMMAND", verb)]).is_ok());
        }
    }

    #[test]
    fn del_needs_no_namespace() {
        let env = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
        assert_eq!(read(&env).unwrap().unwrap().netns(), None);
    }

    #[test]
    fn refuses_names_that_break_the_rules() {
        let with = |id, ifname| {
            refusal(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)])
        };
        for id in ["../x", "-a", "a/b", "a b", "é"] {
            assert!(with(id, "eth0").starts_with("invalid characters in containerID"), "{id}");
        }
        for ifname in [".", "..", "a/b", "a:b", "a b", "a-name-too-long-", "eth%d"] {
            assert!(with("c", ifname).starts_with("invalid CNI_IFNAME"), "{ifname}");
        }
    }

    #[test]
    fn returns_none_without_a_command_and_refuses_an_unknown_one() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[("CNI_COMMAND", "")]).unwrap().is_none());
        assert_eq!(refusal(&[("CNI_COMMAND", "add")]), "unknown CNI_COMMAND: add");
    }

    #[test]
    fn a_version_probe_is_answered_whatever_else_is_set() {
        let env = [("CNI_COMMAND", "VERSION"), ("CNI_ARGS", "rubbish"), ("CNI_IFNAME", "a/b")];
        assert_eq!(read(&env).unwrap().unwrap().verb(), Verb::Version);
    }

    #[test]
    fn args_are_pairs_and_unknown_keys_are_kept() {
        let base = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")];
        let with = |args| read(&[base[0], base[1], base[2], ("CNI_ARGS", args)]);
        let env = with("IgnoreUnknown=1;IP=10.9.0.5;K8S_POD_NAME=web;EMPTY=").unwrap().unwrap();
        assert_eq!(env.arg("IP"), Some("10.9.0.5"));
        assert_eq!(env.arg("EMPTY"), None);
        for bad in ["IP", "IP=1=2", "a;b=c"] {
            assert!(with(bad).unwrap_err().msg.starts_with("CNI_ARGS: invalid pair"), "{bad}");
        }
    }
}
