//! The marker stands in every place of the file where it can be wrong, and in no error.

use super::*;
use crate::config::NodeConfig;

/// A token of Consul, as an operator might have put it anywhere.
const MARKER: &str = "6b1d8f50-secret-marker-4b7e";

fn refusal(text: &str) -> String {
    NodeConfig::parse(text).unwrap_err()
}

/// Each with the number of the line that the error is to name; `@` stands for the marker.
const FAULTS: [(&str, usize); 40] = [
    // Not TOML: on the line, before it, after it.
    ("[store]\ntoken = @\n", 2),
    ("[store]\ntoken = \"@\n", 2),
    ("[store]\ntoken = '@\n", 2),
    ("[store]\ntoken = \"\"\"@\n", 3),
    ("[store]\ntoken \"@\"\n", 2),
    ("[store]\ntoken = \"@\" x\n", 2),
    ("[store]\ntoken = \"@\\q\"\n", 2),
    ("[store]\ntoken = \"@\" token = \"@\"\n", 2),
    ("[store]\ntoken: @\n", 2),
    ("[store]\n@\n", 2),
    ("@\n[store]\n", 1),
    ("[store]\n@ = \n", 2),
    ("[@\ntoken = \"x\"\n", 1),
    ("[store\ntoken = \"@\"\n", 1),
    ("[store]]\ntoken = \"@\"\n", 1),
    ("[store]\ntoken = \"@\"\nca_file\n", 3),
    ("[store]\nca_file\ntoken = \"@\"\n", 2),
    ("[store]\ntoken = [\"@\"\n", 2),
    ("[store]\ntoken = { x = \"@\"\n", 2),
    ("store = { type = \"consul\", token = \"@\" \"x\" }\n", 1),
    // Twice.
    ("[store]\ntoken = \"@\"\ntoken = \"@\"\n", 3),
    ("[store]\ntoken = \"@\"\n[store]\ntoken = \"@\"\n", 3),
    // Wrong types, of the token and of every other kind of key.
    ("[store]\ntoken = [\"@\"]\n", 2),
    ("[store]\ntoken = { value = \"@\" }\n", 2),
    ("[store.token]\n@ = \"@\"\n", 1),
    ("[store]\n\ntype = \"@\"\n", 3),
    ("[store]\ntype = [\"@\"]\n", 2),
    ("store = \"@\"\n", 1),
    ("port = \"@\"\n", 1),
    ("agent = \"@\"\n", 1),
    ("[agent]\nsweep_grace = \"@, expected @\"\n", 2),
    // Unknown keys, the marker's own among them, and sections.
    ("[store]\ntokn = \"@\"\n", 2),
    ("[store]\n\"@\" = \"token\"\n", 2),
    ("\"@\" = 1\n", 1),
    ("[@]\nx = 1\n", 1),
    // A token in the wrong section.
    ("token = \"@\"\n[store]\n", 1),
    ("[agent]\ntoken = \"@\"\n", 2),
    ("[store]\ntoken = \"@\"\n", 2),
    // A value that parses and cannot be used.
    ("\nnode = \"@ @\"\n", 2),
    ("[store]\naddress = \"http://user:@@198.18.0.9\"\n", 2),
];

#[test]
fn no_fault_of_the_file_shows_any_of_its_values() {
    for (text, line) in FAULTS {
        let shown = refusal(&text.replace('@', MARKER));
        assert!(!shown.contains("marker") && !shown.contains("user"), "{text:?}: {shown}");
        assert!(shown.starts_with(&format!("line {line}")), "{text:?}: {shown}");
    }
}

#[test]
fn a_key_is_named_if_weft_knows_it_or_it_is_misspelt() {
    for (text, expected) in [
        (
            "nod = \"a\"",
            "line 1: there is no key `nod` outside of all sections; did you mean `node`?",
        ),
        (
            "[store]\ntokn = \"x\"",
            "line 2: there is no key `tokn` in [store]; did you mean `token`?",
        ),
        ("port = \"x\"", "line 1: port: expected u16"),
        ("[store]\ntype = \"etc\"", "line 2: store.type: expected `local` or `consul`"),
        ("[store]\n\ntoken = 1", "line 3: store.token: expected a string"),
    ] {
        assert_eq!(refusal(text), expected);
    }
    let other = refusal("[agent]\nx = 1");
    assert!(
        other.starts_with("line 2: an unknown key in [agent]; known are `release_idle"),
        "{other}"
    );
}

#[test]
fn a_secret_is_no_misspelt_key() {
    for (written, meant) in [("token", "node"), ("abcdef", "token"), ("", "node"), ("ab", "to")] {
        assert!(!is_misspelt(written, meant), "{written} {meant}");
    }
    for written in ["tokn", "tokken", "toekn", "Token", "token_"] {
        assert!(is_misspelt(written, "token"), "{written}");
    }
}
