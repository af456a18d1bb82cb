"""Cells and tables of markdown that all reports share."""

from collections.abc import Iterable, Sequence

from benchmarks.cases.bounded import Verdict


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def targets(found: Iterable[Verdict]) -> str:
    """Return measured against promised, one row per target."""

    def row(verdict: Verdict) -> list[str]:
        sign = ">=" if verdict.at_least else "<="
        met = "met" if verdict.kept else "**missed**"
        return [verdict.dataset, verdict.target, f"{verdict.value:.4f}", f"{sign} {verdict.limit:g}", met]

    return markdown(["set", "target", "measured", "promised", ""], [row(verdict) for verdict in found])


def times(advantage: float | None) -> str:
    """Return a size advantage; a loss is printed as plainly as a win."""
    if advantage is None:
        return "-"
    return f"{advantage:.3f}x" if advantage >= 1 else f"**{advantage:.3f}x (larger)**"
