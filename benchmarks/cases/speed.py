"""The targets of speed, memory and waiting times, and what was measured against them: pure functions of the JSON."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.cases.bounded import Verdict

PARTS = ("field", "block", "latent", "levels", "start", "linear")
LEVELS = {"avx512": 1.0, "avx2": 0.5, "generic": 0.25}  # shares of the targets of speed that kernels must reach
OVER_SPERR = 2.5  # times its speed, at 1e-3 of the range
LINEAR = 1.1  # most that a value may cost, times its cost in the first case of its kind


class Target(NamedTuple):
    """MB/s of encoding and decoding with AVX-512, and their peak memory over the array."""

    encode: float
    decode: float
    encode_memory: float
    decode_memory: float


TARGETS = {
    "field, 0.001 of the range": Target(60, 100, 5, 3.5),
    "field, 0.01 of the range": Target(100, 200, 5, 3.5),
    "block, 0.001 of the range": Target(30, 50, 5, 3.5),
    "latent, 200x, two cores": Target(20, 40, 12, 8),
}
SECONDS = {
    "import isopress": 0.15,
    "xr.open_zarr beyond plain Zarr": 0.1,
    "first field after process start": 0.5,
    "isopress compress sample:era5, two cores": 4.0,
}


def speed_verdicts(result: dict[str, Any]) -> list[Verdict]:
    """Return every target of the parts that were measured."""
    return [*_of_runs(result), *_of_levels(result), *_of_waiting(result), *_of_costs(result)]


def costs(result: dict[str, Any]) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """Return for each row of "linear" its name, microseconds per value, and those over the first row's of its kind."""
    found = []
    first: dict[str, dict[str, float]] = {}
    for row in result.get("linear", []):
        kind = "chunks" if "chunks" in row["what"] else "sizes"
        cost = {part: 1e6 * row[part] / row["n_values"] for part in ("encode", "decode")}
        base = first.setdefault(kind, cost)
        found.append((row["what"], cost, {part: cost[part] / base[part] for part in cost}))
    return found


def _of_runs(result: dict[str, Any]) -> Iterator[Verdict]:
    runs = [run for part in ("field", "block", "latent") for run in result.get(part, [])]
    share = LEVELS.get(result.get("level", ""), 1.0)
    for run in (run for run in runs if run["codec"] == "isopress" and run["case"] in TARGETS):
        case, target = run["case"], TARGETS[run["case"]]
        sperr = next((other for other in runs if (other["case"], other["codec"]) == (case, "SPERR")), None)
        for part, least, most in (
            ("encode", target.encode, target.encode_memory),
            ("decode", target.decode, target.decode_memory),
        ):
            speed = run[part]["mb_per_s"]
            yield Verdict(case, f"{part}, MB/s", speed, least * share, at_least=True)
            yield Verdict(case, f"{part}, memory / array", run[part]["peak_over_array"], most, at_least=False)
            if sperr is not None and case == "field, 0.001 of the range":
                times = speed / sperr[part]["mb_per_s"]
                yield Verdict(case, f"{part}, times the speed of SPERR", times, OVER_SPERR, at_least=True)


def _of_levels(result: dict[str, Any]) -> Iterator[Verdict]:
    for run in result.get("levels", []):
        case, share = f"{run['case']}, {run['level']}", LEVELS[run["level"]]
        for part in ("encode", "decode"):
            least = share * getattr(TARGETS[run["case"]], part)
            yield Verdict(case, f"{part}, MB/s", run[part]["mb_per_s"], least, at_least=True)


def _of_waiting(result: dict[str, Any]) -> Iterator[Verdict]:
    for row in result.get("start", []):
        yield Verdict("start", f"{row['what']}, s", row["seconds"], SECONDS[row["what"]], at_least=False)


def _of_costs(result: dict[str, Any]) -> Iterator[Verdict]:
    for kind in ("million values", "chunks"):
        rows = [(what, ratios) for what, _, ratios in costs(result) if kind in what]
        for part in ("encode", "decode") if rows else ():
            worst = max(ratios[part] for _, ratios in rows)
            yield Verdict("linear", f"{part}, cost of a value, more {kind}", worst, LINEAR, at_least=False)
