"""Dependencies between crates, compared with the table in CONTRIBUTING.md under "Which crate may use which".

The table is the only source. Each of its lines is `NAMES → NAMES`, several names with commas; a name on the left may
have its folder in parentheses. `model` means the package `weft-model` unless there is a package `model`. A crate may
use what stands on its right and what that may use.
"""

import json
import re
import subprocess
from pathlib import Path

from repository import ROOT, fenced, finish

TABLE = 'the table "Which crate may use which" in CONTRIBUTING.md'
HEADING = "Which crate may use which"
NAME = re.compile(r"([a-z][a-z0-9_-]*)(?:\s*\(([\w./-]+)\))?\Z")

# An address plugin knows nothing of links; so it starts fast, and works under any main plugin.
IPAM = "weft-ipam"
NETLINK = re.compile(r"weft-datapath|rtnetlink|netlink-.*|neli|nftables")


def read_table(text, packages):
    """({package: packages on its right}, problems) from the text of CONTRIBUTING.md."""
    lines = text.split("\n")
    heading = [n for n, line in enumerate(lines) if re.fullmatch(rf"#+ {HEADING}", line.rstrip())]
    if not heading:
        return {}, [f'CONTRIBUTING.md: the heading "{HEADING}" is missing']
    start = heading[0] + 1
    in_fence = list(fenced(lines))
    block = []
    for number in range(start, len(lines)):
        if in_fence[number] and not lines[number].lstrip().startswith(("```", "~~~")):
            block.append((number + 1, lines[number]))
        elif block or lines[number].startswith("#"):
            break
    return parse_rows(block, packages)


def parse_rows(block, packages):
    """({package: packages on its right}, problems) from the lines of the table."""
    rows, problems = [], []
    for number, line in block:
        left, arrow, right = re.sub(r"\s+", " ", line.strip()).replace("->", "→").partition("→")
        if arrow:
            rows.append((number, left, right))
        elif rows and left:
            # A long line goes on in the next.
            rows[-1] = (rows[-1][0], rows[-1][1], f"{rows[-1][2]} {left}")
    table = {}
    for number, left, right in rows:
        place = f"CONTRIBUTING.md:{number}"
        users = names(left, packages, place, problems)
        nothing = re.match(r"nothing\b", right.strip())
        used = [] if nothing else names(right, packages, place, problems)
        for user in users:
            table.setdefault(user, set()).update(used)
    if not table:
        problems.append(f"CONTRIBUTING.md: no line like `a → b, c` below {HEADING}")
    return table, problems


def names(text, packages, place, problems):
    """The packages that one side of a line names."""
    found = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        match = NAME.match(word)
        if not match:
            problems.append(f'{place}: "{word}" is not the name of a crate')
            continue
        name, folder = match.groups()
        package = name if name in packages else f"weft-{name}"
        if package not in packages:
            problems.append(f"{place}: the table names {name}, but the workspace has no package {package}")
        elif folder and folder not in (packages[package]["folder"], Path(packages[package]["folder"]).name):
            problems.append(f"{place}: {name} is in {packages[package]['folder']}/, not in {folder}/")
        found.append(package)
    return found


def reach(graph, start):
    """{node: path from start} of all that can be reached from start, without start unless it is on a cycle."""
    paths, queue = {}, [(start, [start])]
    while queue:
        node, path = queue.pop(0)
        for following in sorted(graph.get(node, ())):
            if following not in paths:
                paths[following] = [*path, following]
                queue.append((following, paths[following]))
    return paths


def violations(table, packages):
    """Edges that the table does not allow, crates that it does not have, and circles in it."""
    for package in sorted(packages):
        if package not in table:
            yield f"{package}: is missing on the left in {TABLE}; add a line with what it may use"
    allowed = {package: reach(table, package) for package in table}
    for package in sorted(table):
        if package in allowed[package]:
            yield f"{TABLE} goes in a circle: {' → '.join(allowed[package][package])}"
    for package, facts in sorted(packages.items()):
        for used, kind in sorted(facts["uses"]):
            if packages[used]["program"] and (kind == "dev" or not facts["program"]):
                user = "a test" if kind == "dev" else "a library"
                yield f"{package}: uses {used}, but {user} may not use a program; move what it needs into a library"
            elif kind != "dev" and package in table and used not in allowed[package]:
                yield (
                    f"{package}: uses {used}, which {TABLE} does not allow;"
                    " remove the dependency or put it into the table, with a reason"
                )


def workspace(metadata):
    """The members: {name: {folder, program, uses: {(name, kind)}}}."""
    root = Path(metadata["workspace_root"])
    members = set(metadata["workspace_members"])
    found = [package for package in metadata["packages"] if package["id"] in members]
    ours = {package["name"] for package in found}
    return {
        package["name"]: {
            "folder": str(Path(package["manifest_path"]).parent.relative_to(root)),
            "program": any("bin" in target["kind"] for target in package["targets"]),
            "uses": {(dep["name"], dep["kind"] or "normal") for dep in package["dependencies"] if dep["name"] in ours},
        }
        for package in found
    }


def links(metadata):
    """{package: packages that are linked into it}, of all packages, by name."""
    name = {package["id"]: package["name"] for package in metadata["packages"]}
    graph = {}
    for node in metadata["resolve"]["nodes"]:
        linked = {name[dep["pkg"]] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])}
        graph.setdefault(name[node["id"]], set()).update(linked)
    return graph


def netlink_of_ipam(graph):
    """A sentence for each path by which the IPAM program comes to netlink."""
    if IPAM not in graph:
        yield f"{IPAM}: is not in the workspace, so its dependencies are not checked"
    paths = reach(graph, IPAM)
    ends = [path for name, path in paths.items() if NETLINK.fullmatch(name)]
    # The first such crate of a path is enough.
    for path in ends:
        if not any(NETLINK.fullmatch(name) for name in path[:-1]):
            yield f"{IPAM}: links {path[-1]}, by {' → '.join(path)}; an IPAM plugin knows nothing of links"


def output(*command):
    """Standard output of a command that is run in the repository."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def main():
    # For this platform only: for all, cargo would download what is linked on Windows.
    host = re.search(r"^host: (\S+)", output("rustc", "-vV"), re.MULTILINE)[1]
    metadata = json.loads(output("cargo", "metadata", "--format-version", "1", "--filter-platform", host))
    packages = workspace(metadata)
    table, problems = read_table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), packages)
    problems += violations(table, packages)
    problems += netlink_of_ipam(links(metadata))
    edges = sum(len(facts["uses"]) for facts in packages.values())
    what = f"{edges} dependencies between {len(packages)} crates against CONTRIBUTING.md; no netlink in {IPAM}"
    return finish(what, problems)
