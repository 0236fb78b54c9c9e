"""Tests of the checks: each finds a fault that is planted for it."""

import unittest
from pathlib import Path

import crates
import keys
import repository
import text
import words

LIBRARY, PROGRAM = False, True


def packages(**uses):
    """A workspace of packages, given as NAME=(program, {(used, kind)}); `_` in a name stands for `-`."""
    return {
        name.replace("_", "-"): {"folder": f"crates/{name.removeprefix('weft_')}", "program": program, "uses": used}
        for name, (program, used) in uses.items()
    }


def table(*rows):
    """CONTRIBUTING.md with these rows in its table."""
    return "\n".join(["## Which crate may use which", "", "Words → before.", "", "```", *rows, "```", "", "a → b"])


class Crates(unittest.TestCase):
    def violations(self, rows, workspace):
        allowed, problems = crates.read_table(table(*rows), workspace)
        return [*problems, *crates.violations(allowed, workspace)]

    def test_accepts_what_the_table_allows_directly_and_by_others(self):
        workspace = packages(
            weft=(PROGRAM, {("weft-host", "normal"), ("weft-model", "normal")}),
            weft_host=(LIBRARY, {("weft-model", "normal"), ("weft-sim", "dev")}),
            weft_model=(LIBRARY, set()),
            weft_sim=(LIBRARY, {("weft-model", "build")}),
        )
        rows = ["weft (weft)  → host", "host, sim (crates/sim)", "     → model", "model → nothing of ours"]
        self.assertEqual(self.violations(rows[:1] + ["host, sim (sim) →", "   model", rows[3]], workspace), [])

    def test_names_an_edge_that_the_table_does_not_allow(self):
        workspace = packages(weft_host=(LIBRARY, set()), weft_model=(LIBRARY, {("weft-host", "normal")}))
        (problem,) = self.violations(["host → model", "model → nothing of ours"], workspace)
        self.assertIn("weft-model: uses weft-host", problem)
        self.assertIn("CONTRIBUTING.md", problem)

    def test_names_a_crate_that_the_table_does_not_have(self):
        workspace = packages(weft_host=(LIBRARY, set()), weft_model=(LIBRARY, set()))
        (problem,) = self.violations(["host → model"], workspace)
        self.assertIn("weft-model: is missing", problem)

    def test_names_a_row_without_a_crate_and_a_wrong_folder(self):
        workspace = packages(weft_host=(LIBRARY, set()))
        problems = self.violations(["host (guest) → gone"], workspace)
        self.assertIn("weft-gone", problems[1])
        self.assertIn("not in guest/", problems[0])

    def test_names_a_circle(self):
        workspace = packages(weft_a=(LIBRARY, set()), weft_b=(LIBRARY, set()))
        self.assertIn("weft-a → weft-b → weft-a", self.violations(["a → b", "b → a"], workspace)[0])

    def test_refuses_a_program_in_a_library_and_in_tests(self):
        for kind in ("normal", "dev"):
            workspace = packages(weft_a=(LIBRARY, {("weftd", kind)}), weftd=(PROGRAM, set()))
            (problem,) = self.violations(["a → weftd", "weftd → nothing of ours"], workspace)
            self.assertIn("uses weftd, but", problem)

    def test_finds_netlink_below_the_ipam_plugin(self):
        for name in ("weft-datapath", "rtnetlink", "netlink-sys"):
            graph = {"weft-ipam": {"weft-node"}, "weft-node": {name}, name: {"netlink-packet-core"}}
            (problem,) = crates.netlink_of_ipam(graph)
            self.assertIn(f"weft-ipam → weft-node → {name}", problem)
        self.assertEqual([*crates.netlink_of_ipam({"weft-ipam": {"serde"}, "weftd": {"rtnetlink"}})], [])


CONFIG = """
/// The file, with a comment on node: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FileFormat {
    node: Option<String>,
    #[serde(default)] // not a key: this
    data_dir: BTreeMap<String, PathBuf>,
    agent: Option<AgentFormat>,
    store: toml::Value,
    #[serde(skip)]
    none: u8,
}
#[derive(Deserialize)] #[serde(deny_unknown_fields)]
struct AgentFormat { #[serde(alias = "old")] grace: u64 }
#[derive(Deserialize)]
struct Other { other: u8 }
"""
STORE = """
#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "type")]
pub enum StoreFormat { Local { address: String }, Consul(ConsulFormat) }
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsulFormat { #[serde(rename = "ca_file", default)] authority: Option<PathBuf> }
"""
WIRE = """
fn read() {
    let mtu: Option<u32> = typed(config, "mtu", "a number")?;
    let kind = typed::<String>(ipam, "type", "a string")?;
    get(given, "ips"); // get(config, "comment")
}
#[cfg(test)]
mod tests { fn f() { get(config, "tested") } }
"""
REFERENCE = """
## The node: weft.toml
| key | type |
|---|---|
| `node`, `data-dir` | |
| `agent.grace`, `agent.old`, `store.type`, `store.address`, `store.ca_file` | |
## The network configuration
Compared is `mtu`.
| key | type |
|---|---|
| `mtu` | |
| `ipam.type` | |
## The call
| `runtimeConfig.ips` | with `ipam.type` |
"""


class Keys(unittest.TestCase):
    def problems(self, config=CONFIG, wire=WIRE, reference=REFERENCE):
        formats = keys.read_formats([("cluster/config.rs", config), ("store/config.rs", STORE)])
        conflist = keys.conflist_keys([("wire.rs", wire)])
        return [
            *keys.compare_toml(keys.toml_keys(formats), reference),
            *keys.compare_conflist(conflist, reference),
        ]

    def test_accepts_a_reference_that_is_complete(self):
        self.assertEqual(self.problems(), [])

    def test_finds_each_key_that_the_reference_lacks(self):
        for key in ("node", "data-dir", "agent.grace", "agent.old", "store.type", "store.address", "store.ca_file"):
            with self.subTest(key=key):
                (problem,) = self.problems(reference=REFERENCE.replace(f"`{key}`", ""))
                self.assertIn(f"the key {key},", problem)
        for key in ("mtu", "ipam.type"):
            with self.subTest(key=key):
                (problem,) = self.problems(reference=REFERENCE.replace(f"| `{key}` |", "| |"))
                self.assertIn(f"the key {key},", problem)

    def test_finds_a_key_that_is_new_in_the_code(self):
        (problem,) = self.problems(config=CONFIG.replace("node:", "planted: u8,\n node:"))
        self.assertIn("the key planted,", problem)
        (problem,) = self.problems(wire=WIRE.replace("get(given", 'get(config, "planted"); get(given'))
        self.assertIn("the key planted,", problem)

    def test_finds_a_key_that_is_in_the_reference_only(self):
        for before in ("`node`", "`mtu` |"):
            (problem,) = self.problems(reference=REFERENCE.replace(f"| {before}", f"| `planted`, {before}"))
            self.assertIn("lists the key planted", problem)

    def test_says_that_it_found_no_source(self):
        self.assertIn("in vain", "".join(self.problems(config="", wire="")))


class Text(unittest.TestCase):
    def sorts(self, kind, source):
        return [sort for _, sort, _ in text.problems_of(Path("file"), kind, source)]

    def test_measures_comments_and_strings(self):
        self.assertEqual(self.sorts("rust", f"// {'x' * 97}\n"), [])
        self.assertEqual(self.sorts("rust", f"// {'x' * 98}\n"), ["rust too wide"])
        self.assertEqual(self.sorts("shell", "é" * 130 + "\n"), [])
        self.assertEqual(self.sorts("shell", "é" * 131 + "\n"), ["shell too wide"])

    def test_excepts_tables_addresses_and_fences(self):
        wide = "x" * 131
        self.assertEqual(self.sorts("markdown", f"| {wide} |\n```\n{wide}\n```\nhttps://{wide}\n[a]({wide})\n"), [])
        self.assertEqual(self.sorts("markdown", f"```\n```\n{wide}\n"), ["markdown too wide"])

    def test_finds_white_space(self):
        self.assertEqual(self.sorts("other", "a \n"), ["white space at an end of a line"])
        self.assertEqual(self.sorts("rust", "\ta\n"), ["tab"])
        self.assertEqual(self.sorts("rust", "a"), ["no line end"])


class Words(unittest.TestCase):
    def found(self, kind, source):
        return [word for _, word, _ in words.findings(kind, source)]

    def test_finds_words_in_prose_only_where_there_is_prose(self):
        self.assertEqual(self.found("rust", '// Made anew.\nlet x = "nobody\'s";\n'), ["anew", "nobody's"])
        self.assertEqual(self.found("markdown", "It is passed\nover. `anew`\n"), ["passed over"])
        self.assertEqual(self.found("shell", "# Take turns, in every way: gateways look.\n"), [])

    def test_finds_openings_of_comments(self):
        self.assertEqual(self.found("rust", "/// Whether it is.\n/// What it is.\n"), ["Whether …"])
        self.assertEqual(self.found("rust", "/// Returns whether it is.\n/// How so.\n"), [])
        self.assertEqual(self.found("rust", "//// What\n// What\n"), [])

    def test_finds_names(self):
        self.assertEqual(self.found("rust", "const LOCK_PATIENCE: News = look_twice(gateway, always);\n"),
                         ["name LOCK_PATIENCE", "name News", "name look_twice"])  # fmt: skip
        self.assertEqual(self.found("rust", "#[test]\nfn what_is_so() {}\nfn what_it_is() {}\n"), ["test what_is_so"])


class Rust(unittest.TestCase):
    def test_tells_code_from_comments_and_strings(self):
        source = 'let a: &\'a str = r#"x " // y"#; // "z\nlet b = \'"\'; /* c\n */ let d = "\\"";\n'
        code, comments, strings = repository.rust_parts(source)
        self.assertEqual(code.split(), "let a: &'a str = ; let b = ; let d = ;".split())
        self.assertEqual(comments.split(), '// "z /* c */'.split())
        self.assertEqual(strings.split(), 'r#"x " // y"# \'"\' "\\""'.split())


def main():
    program = unittest.main(module="planted", argv=["planted"], exit=False)
    return 0 if program.result.wasSuccessful() else 1
