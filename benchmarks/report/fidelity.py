"""Tables of figures of merit at each preset."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.markdown import markdown

Result = dict[str, Any]
DSSIM_LDCPY = 0.995  # the default of ldcpy 0.20; that of `isopress compare` is ten times stricter

_HEADER = ["variable", "preset", "codec", "ratio", "largest error", "RMSE", "Pearson", "DSSIM", "power", "KS p"]


def fidelity(result: Result) -> str:
    """Return the figures of every run; those that miss their threshold are bold."""
    rows = [
        [
            run["variable"],
            run["preset"],
            run["codec"],
            f"{run['ratio']:.1f}x",
            f"{run['max_error']:.3g}",
            f"{run['rmse']:.3g}",
            _checked(run, "pearson", f"{run['pearson']:.7f}"),
            _checked(run, "dssim", f"{run['dssim']:.5f}"),
            _checked(run, "power", f"{100 * run['power']:.2g} %"),
            _checked(run, "ks", f"{run['ks']:.2g}"),
            f"{run['neighbours']:.2f}",
        ]
        for run in result["runs"]
    ]
    return markdown([*_HEADER, "errors of neighbours correlate"], rows)


def passes(result: Result) -> str:
    """Return how many variables pass each threshold, by preset and codec; DSSIM has that of ldcpy too."""
    groups: dict[tuple[str, str], list[Mapping[str, bool]]] = {}
    for run in result["runs"]:
        passed = run["passed"] | {"dssim_ldcpy": run["dssim"] > DSSIM_LDCPY}
        groups.setdefault((run["preset"], run["codec"]), []).append(passed)
    names = ("pearson", "dssim_ldcpy", "dssim", "power", "ks")
    rows = [
        [preset, codec, *(f"{sum(passed[name] for passed in found)} of {len(found)}" for name in names)]
        for (preset, codec), found in groups.items()
    ]
    header = ["Pearson > 0.99999", "DSSIM > 0.995", "DSSIM > 0.9995", "power within 5 % to 4 cells", "KS p > 0.05"]
    return markdown(["preset", "codec", *header], rows)


def dssim(result: Result) -> str:
    """Return the bounds at which DSSIM passes, by variable: `archive` halved so many times."""
    rows = [
        [found["variable"], f"{found['bound']:g}", *(_at(found, found.get(name)) for name in ("ldcpy", "strict"))]
        for found in result["dssim"]
    ]
    return markdown(["variable", "bound of archive", "DSSIM > 0.995 at", "DSSIM > 0.9995 at"], rows)


def _at(found: Mapping[str, Any], passed: Mapping[str, Any] | None) -> str:
    if passed is None:
        return "none tried"
    return f"{found['bound'] / 2 ** passed['halvings']:.2g} ({passed['ratio']:.1f}x)"


def _checked(run: Mapping[str, Any], name: str, text: str) -> str:
    return text if run["passed"][name] else f"**{text}**"
