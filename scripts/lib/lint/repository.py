"""The repository's text files by kind, and a way to report what is wrong with one of them."""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# Walked, not listed by git: an archive of the sources and a checkout of another user are linted as well.
SKIPPED_FOLDERS = {".git", "target", "__pycache__"}

SUFFIXES = {
    ".rs": "rust",
    ".bash": "shell",
    ".sh": "shell",
    ".bats": "shell",
    ".md": "markdown",
    ".py": "python",
}
# Files of other kinds that people write by hand.
OTHER_SUFFIXES = {".toml", ".conflist", ".hcl", ".service", ".json", ".yml", ".yaml"}
SHEBANG = re.compile(rb"#!.*\b(bash|sh|bats|python3?)\b")

# A string or a character, a comment, or the end of one in Rust. Raw strings come before plain ones.
RUST_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<string>b?r(?P<hashes>\#*)".*?"(?P=hashes) | [bc]?"(?:\\.|[^"\\])*" | b?'(?:\\[^'\n]+|\\'|[^'\\\n])')""",
    re.DOTALL | re.VERBOSE,
)


def kind_of(path):
    """The kind of a file: rust, shell, markdown, python, other, or None for what is not checked."""
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    if path.suffix in OTHER_SUFFIXES or path.name in ("Makefile", ".gitignore"):
        return "other"
    if path.suffix:
        return None
    with path.open("rb") as file:
        shebang = SHEBANG.match(file.readline(200))
    if not shebang:
        return None
    return "python" if shebang[1].startswith(b"python") else "shell"


def files(kinds, root=ROOT):
    """All files of the kinds named, as (path below root, kind, text), in order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                continue
            kind = kind_of(path)
            if kind in kinds:
                yield path.relative_to(root), kind, path.read_text(encoding="utf-8")


def blank(text):
    """Spaces in place of everything but line ends, so that places in the text stay the same."""
    return re.sub(r"[^\n]", " ", text)


def rust_parts(source):
    """(code, comments, strings) of a Rust file, each with the others' text blanked."""
    parts, end = {"code": [], "comment": [], "string": []}, 0
    for token in RUST_TOKEN.finditer(source):
        kind = "comment" if token["comment"] is not None else "string"
        for part, pieces in parts.items():
            code, text = source[end : token.start()], token[0]
            pieces.append(code if part == "code" else blank(code))
            pieces.append(text if part == kind else blank(text))
        end = token.end()
    for part, pieces in parts.items():
        pieces.append(source[end:] if part == "code" else blank(source[end:]))
    return tuple("".join(pieces) for pieces in parts.values())


def without_comments(source):
    """A Rust file with its comments blanked."""
    code, _, strings = rust_parts(source)
    return "".join(char if blanked == " " else blanked for blanked, char in zip(code, strings))


def without_tests(source):
    """A Rust file up to its tests, which stand at its end."""
    return source.split("#[cfg(test)]\nmod ")[0]


def fenced(lines):
    """For each line of Markdown: True if it is in a fenced block or one of its fences."""
    fence = None
    for line in lines:
        mark = re.match(r"\s*(```+|~~~+)", line)
        if fence is None and mark:
            fence = mark[1]
            yield True
        elif fence is not None:
            yield True
            if mark and line.strip() == fence:
                fence = None
        else:
            yield False


def finish(what, problems):
    """Prints the problems and one line about the check; the exit code of the check."""
    for problem in problems:
        print(problem)
    print(f"{what}: {len(problems)} problems" if len(problems) != 1 else f"{what}: 1 problem")
    sys.stdout.flush()
    return 1 if problems else 0
