"""Tables of speed, memory and waiting times, from their JSON."""

from typing import Any

from benchmarks.cases.speed import costs, speed_verdicts
from benchmarks.report.markdown import markdown, targets

Result = dict[str, Any]
OVERVIEW = ("field, 0.001 of the range", "latent, 200x, two cores")  # the cases that stand for all in the README
GUARANTEES = {
    "isopress": "every value within the bound, checked by the encoder; NaN, infinities, -0.0 bit by bit",
    "SZ3 (native)": "bound",
    "SPERR": "bound, missed by up to 0.1 %; refuses NaN and infinities",
    "ZFP": "bound; refuses NaN and infinities",
    "om-files": "bound, missed by a rounding of float32; infinities become numbers",
    "rounding + pcodec": "bound, missed by a rounding of float32",
}


def overview(result: Result) -> str:
    """Return size, speed and guarantee of the main codecs on one field, and of a target of 200 times."""
    runs = {run["codec"]: run for run in result.get("field", []) if run["case"] == OVERVIEW[0]}
    chosen = [(name, runs[name], promise) for name, promise in GUARANTEES.items() if name in runs]
    promise = "ratio or RMSE of a chunk within 3 %, no bound on a value (2 threads)"
    latent = (run for run in result.get("latent", []) if run["case"] == OVERVIEW[1])
    chosen += [("isopress, ratio:200", run, promise) for run in latent]
    rows = [
        [name, f"{run['ratio']:.1f}x", *(f"{run[part]['mb_per_s']:.0f}" for part in ("encode", "decode")), promise]
        for name, run, promise in chosen
    ]
    return markdown(["codec", "smaller", "encode MB/s", "decode MB/s", "guarantee"], rows)


def speed_targets(result: Result) -> str:
    """Return measured against promised, one row per target of the parts that were measured."""
    return targets(speed_verdicts(result))


def speed(result: Result) -> str:
    """Return MB/s and peak memory per case and codec, and how many times a peer's speed isopress has."""
    runs = [run for part in ("field", "block", "latent") for run in result.get(part, [])]
    ours = {run["case"]: run for run in runs if run["codec"] == "isopress"}
    rows = [[run["case"], run["codec"], *_figures(run), *_against(ours.get(run["case"]), run)] for run in runs]
    header = ["case", "codec", "ratio", "encode MB/s", "decode MB/s", "encode memory", "decode memory"]
    return markdown([*header, "isopress / it, encode", "decode"], rows)


def levels(result: Result) -> str:
    """Return MB/s per case with each of the compiled kernels: one machine, one run."""
    runs = [
        {"level": result.get("level", "kernels"), **run}
        for part in ("field", "block", "latent")
        for run in result.get(part, [])
    ]
    runs = [run for run in runs if run["codec"] == "isopress"] + result.get("levels", [])
    names = list(dict.fromkeys(run["level"] for run in runs))
    speeds = {(run["case"], run["level"], part): run[part]["mb_per_s"] for run in runs for part in ("encode", "decode")}
    rows = [
        [case, *(f"{speeds[case, name, 'encode']:.1f}, {speeds[case, name, 'decode']:.1f}" for name in names)]
        for case in dict.fromkeys(run["case"] for run in runs)
    ]
    return markdown(["MB/s, encode and decode", *names], rows)


def waiting(result: Result) -> str:
    """Return the seconds of what a user waits for once."""
    rows = [[row["what"], f"{row['seconds']:.2f}"] for row in result.get("start", [])]
    return markdown(["what", "seconds"], rows)


def linearity(result: Result) -> str:
    """Return the cost of a value by size of the field and number of chunks."""
    rows = [
        [what, *(f"{cost[part]:.3f} ({ratios[part]:.2f})" for part in ("encode", "decode"))]
        for what, cost, ratios in costs(result)
    ]
    return markdown(["what", "encode, µs per value (times the first)", "decode"], rows)


def _figures(run: Result) -> list[str]:
    speeds = [f"{run[part]['mb_per_s']:.1f}" for part in ("encode", "decode")]
    peaks = [f"{run[part]['peak_over_array']:.1f}x" for part in ("encode", "decode")]
    return [f"{run['ratio']:.1f}", *speeds, *peaks]


def _against(ours: Result | None, run: Result) -> list[str]:
    if ours is None or ours is run:
        return ["", ""]
    return [f"{ours[part]['mb_per_s'] / run[part]['mb_per_s']:.2f}" for part in ("encode", "decode")]
