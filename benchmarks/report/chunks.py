"""Table of chunk lengths, from its JSON."""

from statistics import geometric_mean
from typing import Any

from benchmarks.report.markdown import markdown

Result = dict[str, Any]


def lengths(result: Result) -> str:
    """Return size, bytes moved for one field and its seconds, by the times in a chunk; means of all blocks."""
    apart = {_case(run): run["nbytes"] for run in result["sizes"] if run["length"] == 1}
    rows = []
    for row in result["seconds"]:
        bound, length = row["relative_bound"], row["length"]
        runs = [run for run in result["sizes"] if (run["relative_bound"], run["length"]) == (bound, length)]
        size = geometric_mean(run["nbytes"] / apart[_case(run)] for run in runs)
        moved = geometric_mean(run["largest"] * run["fields"] / run["nbytes"] for run in runs)
        cells = [f"{bound:g}", str(length), f"{size:.3f}", f"{moved:.2f}", f"{size * moved:.2f}"]
        rows.append([*cells, str(row["decoded"]), f"{row['seconds']:.2f}"])
    header = ["bound / deviation", "times in a chunk", "bytes / fields apart", "moved for one field / its share"]
    return markdown([*header, "moved / a field apart", "fields decoded for one", "s for one, 0.25 degree"], rows)


def _case(run: Result) -> tuple[str, float]:
    return run["block"], run["relative_bound"]
