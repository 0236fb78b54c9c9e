use std::ffi::OsString;

use proptest::prelude::*;

use super::*;

/// Says which verb it was called for, by way of an error; ADD succeeds.
struct Echo;

impl Echo {
    fn answer(request: &Request) -> Result<(), CniError> {
        assert_ne!(request.network_name(), "panic", "asked to");
        Err(CniError::new(777, request.verb().as_str()))
    }
}

impl Plugin for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
    fn add(&self, request: &Request) -> Result<CniResult, CniError> {
        let previous = request.prev_result()?;
        Ok(previous.unwrap_or_default())
    }
    fn del(&self, request: &Request) -> Result<(), CniError> {
        Self::answer(request)
    }
    fn check(&self, request: &Request) -> Result<(), CniError> {
        Self::answer(request)
    }
    fn gc(&self, request: &Request) -> Result<(), CniError> {
        Self::answer(request)
    }
    fn status(&self, request: &Request) -> Result<(), CniError> {
        Self::answer(request)
    }
    fn take_back(&self, request: &Request) {
        TAKEN_BACK.set(TAKEN_BACK.get() + 1);
        assert_eq!(request.verb(), Verb::Add);
    }
}

thread_local! {
    static TAKEN_BACK: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[test]
fn takes_back_an_add_whose_result_cannot_be_said() {
    let output = call("ADD", r#"{"name":"n","cniVersion":"0.2.0"}"#);
    assert_eq!((code_of(&output), TAKEN_BACK.get()), (1, 1));
    assert!(call("ADD", r#"{"name":"n","cniVersion":"0.3.0"}"#).success);
    assert_eq!(TAKEN_BACK.get(), 1);
}

fn call(verb: &str, stdin: &str) -> Output {
    let environment = Environment::read(|name| {
        let value = match name {
            "CNI_COMMAND" => verb,
            "CNI_CONTAINERID" => "c1",
            "CNI_IFNAME" => "eth0",
            "CNI_NETNS" => "/run/netns/c1",
            "CNI_PATH" => "/opt/cni/bin",
            _ => return None,
        };
        Some(OsString::from(value))
    });
    handle(&Echo, environment, || Ok(stdin.as_bytes().to_vec()))
}

fn code_of(output: &Output) -> u64 {
    assert!(!output.success);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(json["cniVersion"].is_string() && json["msg"].is_string());
    json["code"].as_u64().unwrap()
}

#[test]
fn malformed_configurations_have_their_codes() {
    for (stdin, code) in [
        ("", 6),
        ("{", 6),
        ("[]", 6),
        ("null", 6),
        ("{}", 7),
        (r#"{"name":""}"#, 7),
        (r#"{"name":7}"#, 7),
        (r#"{"name":"a/b"}"#, 7),
        (r#"{"name":"-a"}"#, 7),
        (r#"{"name":"n","cniVersion":7}"#, 7),
        (r#"{"name":"n","cniVersion":"9.9.9"}"#, 1),
        (r#"{"name":"n","cniVersion":"1.0"}"#, 1),
        (r#"{"name":"n","cniVersion":"1.0.0","prevResult":7}"#, 7),
        (r#"{"name":"n","prevResult":{"cniVersion":"9.9.9"}}"#, 7),
    ] {
        assert_eq!(code_of(&call("ADD", stdin)), code, "{stdin}");
    }
}

#[test]
fn an_unknown_version_is_answered_with_those_that_are_known() {
    let output = call("ADD", r#"{"name":"n","cniVersion":"9.9.9"}"#);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(json["msg"], "incompatible CNI versions");
    let details = json["details"].as_str().unwrap();
    assert!(details.starts_with(r#"config is "9.9.9", plugin supports ["0.1.0""#), "{details}");
}

#[test]
fn verbs_exist_since_their_versions() {
    for (verb, first) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        for version in Version::ALL {
            let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
            let expected = if version >= first.parse().unwrap() { 777 } else { 1 };
            assert_eq!(code_of(&call(verb, &stdin)), expected, "{verb} in {version}");
        }
    }
    assert_eq!(code_of(&call("DEL", r#"{"name":"n"}"#)), 777);
}

#[test]
fn a_missing_version_is_0_1_0() {
    let stdin = r#"{"name":"n","prevResult":{"ip4":{"ip":"10.9.0.5/16"}}}"#;
    let json: Value = serde_json::from_str(&call("ADD", stdin).stdout).unwrap();
    assert_eq!(json, json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.9.0.5/16"}, "dns": {}}));
}

#[test]
fn version_echoes_what_it_was_asked_in_and_works_without_input() {
    let answer = |stdin: &str| -> Value {
        let output = call("VERSION", stdin);
        assert!(output.success);
        serde_json::from_str(&output.stdout).unwrap()
    };
    let all = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(answer(r#"{"cniVersion":"0.4.0"}"#)["cniVersion"], "0.4.0");
    assert_eq!(answer("")["cniVersion"], "1.1.0");
    assert_eq!(answer("rubbish")["supportedVersions"], all);
}

#[test]
fn prints_about_without_cni_command() {
    let output =
        handle(&Echo, Environment::read(|_| None), || panic!("standard input is not read"));
    assert!(output.success && output.stdout.is_empty());
    assert!(output.stderr.contains("CNI protocol versions supported: 0.1.0, "));
}

#[test]
fn a_panic_becomes_an_error_of_the_plugin() {
    assert_eq!(code_of(&call("DEL", r#"{"name":"panic"}"#)), 999);
}

#[test]
fn unreadable_input_is_an_input_failure() {
    let environment = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()));
    let output = handle(&Echo, environment, || Err(std::io::Error::other("gone")));
    assert_eq!(code_of(&output), 5);
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(stdin in ".{0,200}", verb in "ADD|DEL|CHECK|GC|STATUS|VERSION") {
        let output = call(&verb, &stdin);
        if !output.stdout.is_empty() {
            serde_json::from_str::<Value>(&output.stdout).unwrap();
        }
    }

    #[test]
    fn no_value_of_a_known_key_makes_it_panic(
        key in "name|cniVersion|prevResult|ipam|runtimeConfig|args|dns|type",
        value in r#"null|true|7|-1|"x"|\[\]|\[7\]|\{\}|\{"type":7\}|\{"ips":7\}|\{"cni":\[\]\}"#,
    ) {
        call("ADD", &format!(r#"{{"name":"n","cniVersion":"1.0.0","{key}":{value}}}"#));
    }
}

#[test]
fn a_guarded_verb_that_panics_is_an_error_of_its_plugin() {
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let verb = async { panic!("asked to") };
    let Poll::Ready(result) = pin!(guarded::<()>(&Echo, verb)).poll(context) else {
        panic!("it is done at once");
    };
    let error = result.unwrap_err();
    assert!(error.code == code::BUG && error.msg.contains("echo"), "{error}");
}
