"""python3 scripts/lib/lint CHECK: one of the checks of scripts/lint, by its name.

`files KIND...` lists the files of a kind instead.
"""

import importlib
import sys

from repository import files

CHECKS = ("text", "crates", "keys", "words", "planted")


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "files":
        for path, _, _ in files(set(sys.argv[2:])):
            print(path)
        return 0
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        print(__doc__ + "\nchecks: " + " ".join(CHECKS), file=sys.stderr)
        return 2
    return importlib.import_module(sys.argv[1]).main()


sys.exit(main())
