"""Words and openings of comments that CONTRIBUTING.md rules out, with what to write in their place.

A rule holds in prose (comments, strings, Markdown), in code (names of Rust), or in both. Some words are plain English
in a sentence and only bad as names: `turn`, `look`, `way`.
"""

import re
from collections import Counter
from pathlib import PurePath

from repository import ROOT, fenced, files, finish, rust_parts

OPENING = "a comment says what the item is or returns: a noun, a verb, or `Returns whether`"
TEST_NAME = "state the behaviour in the present tense, a verb first"

# Prose of any kind of file, without regard to case.
PROSE = [
    (r"(no|any)body's", "unowned, free, claimable, owned by NODE"),
    (r"whose it is|whose .{1,40} it is", "the owner, owned by NODE"),
    (r"anew", "again, recreated"),
    (r"by now", "already"),
    (r"once more", "again"),
    (r"by the store", "according to the store"),
    (r"(what|as|which) the (cluster )?store (says|said)", "what the store lists, according to the store"),
    (r"whoever|whomever", "the node that, the process that"),
    (r"only who|who enters it", "only the process that"),
    (r"patience|patient(ly)?", "timeout"),
    (r"signs? of life", "heartbeat"),
    (r"news", "events, changes"),
    (r"wish(es|ed)?", "request"),
    (r"graves?", "tombstone"),
    (r"surroundings", "clock and RNG (`Runtime`, `Environment`)"),
    (r"stewards?", "block manager"),
    (r"rosters?", "peer table"),
    (r"stickies", "sticky addresses"),
    (r"books", "ledger"),
    (r"pass(ed|es|ing)? (it |them )?over", "ignored, ignores"),
    (r"(left|leaves?|leaving) (\w+ )?alone", "unchanged, leaves as it is"),
    (r"in doubt", "needs a check"),
    (r"look(s|ed|ing)? after", "manages"),
    (r"by chance", "at random, coincidentally"),
    (r"no matter for a backup", "do not back up"),
    (r"trying on", "will retry in 2 s"),
    (r"may .{1,40} read it\?", "check that TOKEN can read KEY"),
    (r"(is|are|be) found out", "detects"),
]

# Names in Rust, as a word of their own or as a part of a name.
NAMES = [
    (r"patience", "timeout"),
    (r"surroundings", "Runtime, Environment"),
    (r"stewards?", "block manager"),
    (r"roster", "peer table"),
    (r"stickies", "sticky addresses"),
    (r"books", "ledger"),
    (r"news", "events"),
    (r"wish(es)?", "request"),
    (r"graves?", "tombstone"),
    (r"looks?", "pass"),
    (r"turns?", "lock guard, or round where it is one"),
    (r"ways?", "next hop, or kind where it is one"),
    (r"in_doubt|doubt", "needs a check"),
    (r"(no|any)body", "unowned, free, none"),
    (r"whoever", "the node that, the process that"),
    (r"anew", "again"),
]

# The first words of a test's name that tell of a question and not of a behaviour.
TEST_OPENINGS = re.compile(
    r"fn ((?:what|whether|how|where|which|when|who|whoever|nobody|somebody|whose|no_one|only_who)_\w+|\w+_is_found_out)"
)
DOC_OPENINGS = re.compile(r"(What|Whether|How|Where|Which|When|Who|Whose)\b")

PROSE_RULES = [(re.compile(rf"(?<![\w`])(?:{words})(?!\w)", re.IGNORECASE), better) for words, better in PROSE]
# In snake_case, in SCREAMING_CASE and at the humps of CamelCase.
NAME_RULES = [
    (
        re.compile(
            rf"(?<![A-Za-z])(?:{words}|{words.upper()})(?![A-Za-z])"
            rf"|(?<![A-Z])(?:{re.sub(r'(^|[|(])([a-z])', lambda m: m[1] + m[2].upper(), words, count=1)})(?![a-z])"
        ),
        better,
    )
    for words, better in NAMES
]

# The rules themselves, and the tests of them.
EXCEPTED = {PurePath("scripts/lib/lint/words.py"), PurePath("scripts/lib/lint/planted.py")}


def prose_lines(kind, text):
    """[(line number, prose on that line)] of a file."""
    lines = text.split("\n")
    if kind == "rust":
        _, comments, strings = rust_parts(text)
        lines = ["".join(max(pair) for pair in zip(*two)) for two in zip(comments.split("\n"), strings.split("\n"))]
    elif kind == "markdown":
        # Inline code is not prose. A fence may hold a configuration, with comments.
        lines = [line if fence else re.sub(r"`[^`]*`", "`_`", line) for line, fence in zip(lines, fenced(lines))]
    return list(enumerate(lines, 1))


def prose_findings(kind, text):
    """(line number, word, suggestion) of all rules for prose. A phrase may go on in the next line."""
    lines = prose_lines(kind, text)
    for place, (number, line) in enumerate(lines):
        following = lines[place + 1][1] if place + 1 < len(lines) else ""
        both = f"{line.rstrip()} {following.strip().lstrip('/#!*> ')}"
        for rule, better in PROSE_RULES:
            for match in rule.finditer(both):
                # What begins in the next line is found there.
                if match.start() < len(line.rstrip()):
                    yield number, " ".join(match[0].split()), better


def opening_findings(kind, text):
    """(line number, opening, suggestion) of comments on items that open with a question word."""
    before = ""
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.strip()
        if kind == "rust":
            marker = re.match(r"//[/!](?!/)\s*", line)
            # A list item or a heading in a comment is no opening, nor is the line below.
            opens = marker and not before.startswith(marker[0].strip())
            text_of = line[marker.end() :] if marker else ""
        elif kind == "python":
            marker = re.match(r'"""', line)
            opens, text_of = marker, line[3:]
        else:
            # The comment that opens with the name of the function below: `# say TEXT: …`.
            marker = re.match(r"# (?:[\w-]+[^:.]*: )", whole)
            opens = marker and not before.startswith("#")
            text_of = (line[marker.end() :] if marker else "").capitalize()
        found = DOC_OPENINGS.match(text_of) if opens else None
        if found:
            yield number, f"{found[0]} …", OPENING
        before = line


def name_findings(text):
    """(line number, name, suggestion) of names in Rust."""
    code, _, _ = rust_parts(text)
    in_test = False
    for number, line in enumerate(code.split("\n"), 1):
        for word in re.findall(r"\w+", line):
            for rule, better in NAME_RULES:
                if rule.search(word.replace("_", " ")) or rule.search(word):
                    yield number, f"name {word}", better
                    break
        test = TEST_OPENINGS.search(line)
        if test and in_test:
            yield number, f"test {test[1]}", TEST_NAME
        # Until the function below: other attributes may come between.
        in_test = "test]" in line or (in_test and "fn " not in line)


def findings(kind, text):
    """All findings of one file, in the order of its lines."""
    found = list(prose_findings(kind, text))
    if kind in ("rust", "python", "shell"):
        found += opening_findings(kind, text)
    if kind == "rust":
        found += name_findings(text)
    return sorted(set(found))


def crate_of(path):
    """The folder that a finding is counted for: a crate, or a folder at the top."""
    return "/".join(path.parts[:2] if path.parts[0] == "crates" else path.parts[:1])


def main():
    problems, crates = [], Counter()
    for path, kind, text in files({"rust", "shell", "markdown", "python"}, ROOT):
        if path in EXCEPTED:
            continue
        for number, word, better in findings(kind, text):
            problems.append(f"{path}:{number}: {word} → {better}")
            crates[crate_of(path)] += 1
    code = finish("words and openings of comments", problems)
    for crate, count in crates.most_common():
        print(f"{count:6} {crate}")
    return code
