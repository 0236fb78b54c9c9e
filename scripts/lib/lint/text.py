"""Widths of lines, white space at their ends, tabs.

rustfmt keeps Rust code within its width but leaves comments and strings alone, so Rust is measured here too.
"""

import re
from collections import Counter

from repository import ROOT, fenced, files, finish

RUST_COLUMNS = 100
OTHER_COLUMNS = 130
WIDTHS = {
    "rust": RUST_COLUMNS,
    "shell": OTHER_COLUMNS,
    "markdown": OTHER_COLUMNS,
    "python": OTHER_COLUMNS,
}

# No line can be broken inside of these: a URL, and the target of a link.
UNBREAKABLE = re.compile(r"https?://[^\s)>\"'`]+|\]\([^)\s]*\)")


def measured(line, kind, in_fence):
    """The columns of a line that count."""
    if kind == "markdown":
        if in_fence or line.lstrip().startswith("|"):
            return 0
        line = UNBREAKABLE.sub("", line)
    elif line.lstrip().startswith(("//", "#")):
        line = UNBREAKABLE.sub("", line)
    return len(line)


def problems_of(path, kind, text):
    """The problems of one file: (line number, sort of problem, sentence)."""
    lines = text.split("\n")
    fences = list(fenced(lines)) if kind == "markdown" else [False] * len(lines)
    for number, (line, in_fence) in enumerate(zip(lines, fences), 1):
        width = measured(line, kind, in_fence)
        limit = WIDTHS.get(kind)
        if limit and width > limit:
            yield number, f"{kind} too wide", f"{width} columns, {limit} are allowed: break the line"
        if line != line.rstrip():
            yield number, "white space at an end of a line", "white space at the end of the line: remove it"
        if kind == "rust" and "\t" in line:
            yield number, "tab", "a tab in Rust: write spaces, or \\t in a string"
    if text and not text.endswith("\n"):
        yield len(lines), "no line end", "the last line has no end: add one"


def check(root=ROOT):
    """All problems as lines to print, and how many there are of each sort."""
    problems, sorts = [], Counter()
    for path, kind, text in files({"rust", "shell", "markdown", "python", "other"}, root):
        for number, sort, sentence in problems_of(path, kind, text):
            problems.append(f"{path}:{number}: {sentence}")
            sorts[sort] += 1
    return problems, sorts


def main():
    problems, sorts = check()
    what = f"Rust within {RUST_COLUMNS} columns, shell, Python and Markdown within {OTHER_COLUMNS}; white space"
    if sorts:
        what += " (" + ", ".join(f"{count} {sort}" for sort, count in sorts.most_common()) + ")"
    return finish(what, problems)
