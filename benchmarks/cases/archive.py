"""What runs of `benchmarks.archive` say of archives that no machine here could hold: pure functions of the JSON."""

from typing import Any

from benchmarks.cases.bounded import Verdict
from isopress.format.store.cluster import LARGEST_BATCH

ERA5_BYTES = 226e12
CORES = 1000
MOST_OVERHEAD = 0.03  # of a cluster: what is not done by its workers
LEAST_GB = 50.0

Result = dict[str, Any]


def core_seconds(run: Result) -> float:
    """Return the processor seconds of a run, of all its processes."""
    return float(sum(run["core_s"].values()))


def of_workers(run: Result) -> float:
    """Return the processor seconds of the processes that read, encode and check."""
    return float(sum(seconds for role, seconds in run["core_s"].items() if role.endswith("workers")))


def overhead(run: Result) -> float:
    """Return processor seconds of scheduler, nannies and the run itself over those of the workers."""
    return (core_seconds(run) - of_workers(run)) / of_workers(run)


def core_seconds_of_a_message(load: Result) -> float:
    """Return what a batch of tasks costs the scheduler, without the signs of life that come meanwhile."""
    living = load["scheduler_share_when_idle"] * load["wall_s"]
    return max(0.0, float(load["scheduler_core_s"] - living)) / int(load["messages"])


def estimate(result: Result, fidelity: Result, preset: str = "science") -> Result:
    """Return what all of ERA5 would take, and what it would be, at a preset.

    `fidelity` has the ratios of public ERA5 fields. Work is that of the largest run.
    """
    run = result["large"] if "large" in result else result["growth"][-1]
    ratios = [found["ratio"] for found in fidelity["runs"] if (found["preset"], found["codec"]) == (preset, "isopress")]
    per_byte = core_seconds(run) / (1e9 * run["gb"])
    task_bytes = 1e9 * run["gb"] / run["tasks"]
    load = result["scheduler"]
    needed = CORES / (per_byte * task_bytes)
    return {
        "bytes": ERA5_BYTES,
        "cores": CORES,
        "preset": preset,
        "mb_per_core_s": 1e-6 / per_byte,
        "core_hours": ERA5_BYTES * per_byte / 3600,
        "days": ERA5_BYTES * per_byte / CORES / 86400,
        "ratio": len(ratios) / sum(1 / ratio for ratio in ratios),
        "ratios": len(ratios),
        "tasks": ERA5_BYTES / task_bytes,
        "tasks_per_s_needed": needed,
        "tasks_per_message": LARGEST_BATCH,
        "scheduler_load": needed / LARGEST_BATCH * core_seconds_of_a_message(load) + load["scheduler_share_when_idle"],
        "client_load": needed * load["client_core_s_per_task"],
    }


def archive_verdicts(result: Result) -> list[Verdict]:
    """Return every target of the parts that were measured."""
    found = []
    if "large" in result:
        run = result["large"]
        found.append(Verdict("large", "GB compressed", run["gb"], LEAST_GB, True))
        found.append(Verdict("large", "verified", float(run["verified"]), 1.0, True))
        of_cluster = next(part for part in run["parts"] if part["how"] == "cluster")
        found.append(Verdict("large, on a cluster", "overhead", overhead(of_cluster), MOST_OVERHEAD, False))
    for run in result.get("cluster", []):
        if run["how"] == "cluster":
            found.append(Verdict("cluster", "overhead", overhead(run), MOST_OVERHEAD, False))
        if "killed" in run["how"]:
            found.append(Verdict("cluster, killed", "same bytes, verified", float(run["verified"]), 1.0, True))
    if "estimate" in result:
        load = result["estimate"]["scheduler_load"]
        found.append(Verdict("1,000 cores", "load of the scheduler", load, 1.0, False))
    return found
