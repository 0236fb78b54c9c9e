"""The keys of configurations, compared with their reference, docs/configuration.md.

Read from the sources and not from a running program, so that the check is quick and can name the file. The sources
are found by their names, and not by their folders, as crates are moved at times:

- weft.toml: structs and enums with `#[serde(deny_unknown_fields)]` in files named config.rs or below a folder config/.
  A field whose type is such a struct is a section. So is a field that shares its name with a struct of another crate:
  `store` and `StoreFormat`.
- conflists: literals in calls like `typed(ipam, "sticky", …)` in files named wire.rs or request.rs. The object's name
  is the section: `config` is the top, `ipam` and `runtimeConfig` are themselves, another one may be any.

A file under another name shows at once: the keys of the reference that it reads are in no code then.
"""

import re

from repository import ROOT, files, finish, without_comments, without_tests

REFERENCE = "docs/configuration.md"
# The reference's headings, by what they contain.
NODE_SECTION = "weft.toml"
NETWORK_SECTION = "network configuration"
CALL_SECTION = "The call"

# In the reference, but read by runtimes.
FOR_RUNTIMES = {"capabilities"}
# Members of an attachment in `cni.dev/valid-attachments`, which the CNI specification describes.
OF_THE_SPECIFICATION = {"containerID", "ifname"}

SERDE_ITEM = re.compile(
    r"(?P<attributes>(?:\#\[(?:[^\]\"]|\"[^\"]*\")*\]\s*)+)(?:pub(?:\([^)]*\))?\s+)?"
    r"(?P<sort>struct|enum)\s+(?P<name>\w+)[^{;]*\{",
    re.VERBOSE,
)
FIELD = re.compile(r"(?P<attributes>(?:\#\[(?:[^\]\"]|\"[^\"]*\")*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?(?P<rest>.*)", re.DOTALL)
CALL = re.compile(r'\b[a-z_]\w*(?:::<[^()]*>)?\(\s*(?:&?(?P<object>[a-z_][\w.]*),\s*)?"(?P<key>[A-Za-z][\w.-]*)"')


def split_list(text):
    """The parts of a list with commas, of which some may be inside of brackets."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        if char in "([{<":
            depth += 1
        elif char in ")]}>":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def body_at(text, start):
    """The text from start up to the brace that closes what is open there."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def in_style(name, style):
    """A field's name in one of serde's styles."""
    words = name.split("_")
    if style == "camelCase":
        return words[0] + "".join(word.title() for word in words[1:])
    if style == "kebab-case":
        return "-".join(words)
    return name


def fields_of(body, style):
    """{key: type} of the fields of a struct; an alias is a key too."""
    fields = {}
    for text in split_list(body):
        match = FIELD.match(text)
        attributes, rest = match["attributes"], match["rest"]
        if re.search(r"\bskip(_deserializing)?\b", attributes):
            continue
        name, _, kind = rest.partition(":")
        renamed = re.search(r'\brename\s*=\s*"([^"]*)"|\brename\([^)]*deserialize\s*=\s*"([^"]*)"', attributes)
        key = next(filter(None, renamed.groups())) if renamed else in_style(name.strip().removeprefix("r#"), style)
        for one in [key, *re.findall(r'\balias\s*=\s*"([^"]*)"', attributes)]:
            fields[one] = kind.strip()
    return fields


def variants_of(body, attributes, style):
    """{key: type} of all variants of an enum together, and its tag; a variant's own struct is under the key None."""
    fields = {}
    for tag in re.findall(r'\b(?:tag|content)\s*=\s*"([^"]*)"', attributes):
        fields[tag] = ""
    for text in split_list(body):
        rest = FIELD.match(text)["rest"]
        if "{" in rest:
            fields.update(fields_of(rest.partition("{")[2].rpartition("}")[0], style))
        elif "(" in rest:
            fields[None] = f"{fields.get(None, '')} {rest.partition('(')[2]}"
    return fields


def read_formats(sources):
    """{name: (path, {key: type})} of what a weft.toml is read into."""
    formats = {}
    for path, text in sources:
        text = without_comments(without_tests(text))
        for item in SERDE_ITEM.finditer(text):
            attributes = item["attributes"]
            if "Deserialize" not in attributes or "deny_unknown_fields" not in attributes:
                continue
            style = re.search(r'\brename_all\s*=\s*"([^"]*)"', attributes)
            style, body = style[1] if style else "", body_at(text, item.end())
            fields = variants_of(body, attributes, style) if item["sort"] == "enum" else fields_of(body, style)
            formats[item["name"]] = (path, fields)
    return formats


def toml_keys(formats):
    """{key with its section: path} of all keys that the formats accept."""
    inner = {}
    for name, (_, fields) in formats.items():
        for key, kind in fields.items():
            for other in re.findall(r"\w+", kind):
                if other in formats:
                    inner[name, key] = other
    loose = set(formats) - set(inner.values())
    for name, (_, fields) in formats.items():
        for key in fields:
            for other in sorted(loose - {name}):
                if key and (name, key) not in inner and re.fullmatch(rf"{key}([A-Z]\w*)?", other[0].lower() + other[1:]):
                    inner[name, key] = other
    keys = {}

    def collect(name, section):
        path, fields = formats[name]
        for key in fields:
            if (name, key) in inner:
                collect(inner[name, key], f"{section}{key}." if key else section)
            elif key:
                keys[section + key] = path

    for name in sorted(set(formats) - set(inner.values())):
        collect(name, "")
    return keys


def conflist_keys(sources):
    """{(section or None if it is not known, key): path} of all keys that are read out of a conflist."""
    keys = {}
    for path, text in sources:
        text = without_comments(without_tests(text))
        for call in CALL.finditer(text):
            name = (call["object"] or "").rpartition(".")[2]
            section = {"config": "", "ipam": "ipam.", "runtimeConfig": "runtimeConfig."}.get(name)
            keys.setdefault((section, call["key"]), path)
    return keys


def sections(text):
    """{heading: lines} of the second level."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def section(text, heading):
    """The text below the headings that contain the words."""
    return "\n".join(body for title, body in sections(text).items() if heading in title)


def listed(text):
    """The keys in the first column of all tables whose first column is called key."""
    found, in_table = [], False
    for line in text.split("\n"):
        if not line.startswith("|"):
            in_table = False
        elif re.match(r"\|\s*key\s*\|", line):
            in_table = True
        elif in_table:
            found += re.findall(r"`([^`]+)`", line.split("|")[1])
    return found


def compare_toml(keys, reference):
    """Keys of weft.toml that are only in the code or only in the reference."""
    table = listed(section(reference, NODE_SECTION))
    if not keys:
        yield "no struct with #[serde(deny_unknown_fields)] in any config.rs: scripts/lib/lint/keys.py looks in vain"
    if not table:
        yield f"{REFERENCE}: no table of keys below a heading with {NODE_SECTION}"
    for key, path in keys.items():
        if key not in table:
            yield f"{path}: weft.toml may have the key {key}, which {REFERENCE} does not list; add it to the table"
    for key in table:
        if key not in keys:
            yield f"{REFERENCE}: lists the key {key} of weft.toml, which no config.rs has; remove it from the table"


def compare_conflist(keys, reference):
    """Keys of a conflist that are only in the code or only in the reference."""
    table = listed(section(reference, NETWORK_SECTION))
    spoken = re.findall(r"`([^`\n]+)`", section(reference, CALL_SECTION))
    # A call may only mention what `ipam` has; it describes what it has itself.
    described = set(table) | {key for key in spoken if not key.startswith("ipam.")}
    # A key with a section describes the section.
    described |= {key.rsplit(".", depth)[0] for key in described for depth in range(1, key.count(".") + 1)}
    last = {part for key in described for part in key.split(".")}
    if not keys:
        yield "no key is read in any wire.rs or request.rs: scripts/lib/lint/keys.py looks in vain"
    if not table:
        yield f"{REFERENCE}: no table of keys below a heading with {NETWORK_SECTION}"
    for (where, key), path in keys.items():
        known = key in last | described if where is None else where + key in described
        if not known and key not in OF_THE_SPECIFICATION:
            yield f"{path}: reads the key {where or ''}{key}, which {REFERENCE} does not describe; add it to its table"
    for key in table:
        where, _, name = key.rpartition(".")
        wanted = {(None, name), (f"{where}." if where else "", name)}
        if name not in FOR_RUNTIMES and not wanted & set(keys):
            yield f"{REFERENCE}: lists the key {key}, which no wire.rs or request.rs reads; remove it from the table"


def sources(root, fits):
    """(path, text) of the Rust files that fit."""
    return [(path, text) for path, _, text in files({"rust"}, root) if fits(path)]


def check(root=ROOT):
    """All problems, and the numbers of keys of weft.toml and of conflists."""
    reference = (root / REFERENCE).read_text(encoding="utf-8")
    config = sources(root, lambda path: path.name == "config.rs" or "config" in path.parts[:-1])
    toml = toml_keys(read_formats(config))
    conflist = conflist_keys(sources(root, lambda path: path.name in ("wire.rs", "request.rs")))
    problems = [*compare_toml(toml, reference), *compare_conflist(conflist, reference)]
    return problems, len(toml), len(conflist)


def main():
    problems, toml, conflist = check()
    return finish(f"{toml} keys of weft.toml and {conflist} of conflists against {REFERENCE}", problems)
