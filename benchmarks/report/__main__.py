"""Tables from the results, put between markers of RESULTS.md, CASES.md and README.md: `python -m benchmarks.report`.

A table NAME stands between `<!-- table NAME -->` and `<!-- end of table -->`. With `--check` nothing is
written, and the exit code is 1 if a table differs from the results.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import RESULTS
from benchmarks.report.tables import insert_tables

DOCUMENTS = (RESULTS.parent / "RESULTS.md", RESULTS / "CASES.md", RESULTS.parent.parent / "README.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the documents' tables; return 1 if `--check` finds one out of date, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("documents", nargs="*", type=Path, default=DOCUMENTS, help="markdown files")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the JSON files")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args(arguments)
    stale = []
    for document in options.documents:
        text = document.read_text()
        try:
            updated = insert_tables(text, options.results)
        except (LookupError, FileNotFoundError) as error:
            print(f"error: {document.name}: {error}", file=sys.stderr)
            return 2
        if updated != text:
            stale.append(document.name)
            if not options.check:
                document.write_text(updated)
    print(f"{'out of date' if options.check else 'updated'}: {', '.join(stale) or 'none'}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
