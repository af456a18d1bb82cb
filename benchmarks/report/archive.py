"""Tables of large archives, from their JSON."""

from typing import Any

from benchmarks.cases.archive import archive_verdicts, core_seconds, core_seconds_of_a_message, of_workers, overhead
from benchmarks.report.markdown import markdown, targets

Result = dict[str, Any]


def tables(result: Result) -> str:
    """Return the tables of all parts that were measured."""
    found = [archive_targets(result), runs(result)]
    found += [scheduler(result)] if "scheduler" in result else []
    found += [estimate_of_era5(result)] if "estimate" in result else []
    return "\n\n".join(found)


def archive_targets(result: Result) -> str:
    """Return measured against promised, one row per target of the parts that were measured."""
    return targets(archive_verdicts(result))


def runs(result: Result) -> str:
    """Return what every run took: one row each, the smallest archives first."""
    rows = [_row("2 processes", run) for run in result.get("growth", [])]
    rows += [_row(run["how"], run) for run in result.get("cluster", [])]
    if "large" in result:
        rows += [_row(f"large: {run['how']}", run) for run in result["large"]["parts"]]
        rows.append(_row("large: in all", result["large"]))
    header = ["how", "GB", "ratio", "tasks", "core seconds", "MB per core second", "MB/s", "worker, MB at most"]
    return markdown([*header, "not workers", "kills", "verified"], rows)


def estimate_of_era5(result: Result) -> str:
    """Return what all of ERA5 would take, with the formula of each figure."""
    found = result["estimate"]
    terabytes, cores, speed = found["bytes"] / 1e12, found["cores"], found["mb_per_core_s"]
    rows = [
        ["core-hours", f"{terabytes:g} TB / {speed:.2f} MB per core second / 3600", f"{found['core_hours']:,.0f}"],
        [f"days on {cores:,} cores", f"core-hours / {cores:,} / 24", f"{found['days']:.1f}"],
        [
            "bytes",
            f"{terabytes:g} TB / {found['ratio']:.1f}, the harmonic mean of {found['ratios']} public variables at "
            f"`{found['preset']}`",
            f"{terabytes / found['ratio']:.1f} TB",
        ],
        ["tasks", f"{terabytes:g} TB / {found['bytes'] / found['tasks'] / 1e6:.0f} MB", f"{found['tasks']:,.0f}"],
        [
            "tasks a second",
            f"{cores:,} / core seconds of a task",
            f"{found['tasks_per_s_needed']:.1f}",
        ],
        [
            "load of the scheduler, one core being 1",
            f"tasks a second / {found['tasks_per_message']} x core seconds of a message + what idle workers cost",
            f"{found['scheduler_load']:.2f}",
        ],
        ["load of the run itself", "tasks a second x core seconds for each", f"{found['client_load']:.2f}"],
    ]
    return markdown(["all of ERA5", "formula", "figure"], rows)


def scheduler(result: Result) -> str:
    """Return what a scheduler stands, with simulated workers."""
    found = result["scheduler"]
    rows = [
        ["workers", f"{found['workers']:,}"],
        ["tasks that do nothing", f"{found['tasks']:,}"],
        ["tasks a second", f"{found['tasks_per_s']:.0f}"],
        ["messages, of a task or a few", f"{found['messages']:,}"],
        ["scheduler, core milliseconds for a message", f"{1e3 * core_seconds_of_a_message(found):.2f}"],
        ["run, core milliseconds for a task", f"{1e3 * found['client_core_s_per_task']:.2f}"],
        ["scheduler, cores while all workers are idle", f"{found['scheduler_share_when_idle']:.2f}"],
        ["scheduler, MB", f"{found['scheduler_peak_mb']:.0f}"],
    ]
    return markdown(["simulated", ""], rows)


def _row(how: str, run: Result) -> list[str]:
    done = run.get("done_gb", run["gb"])
    return [
        how,
        f"{done:.1f}" if done == run["gb"] else f"{done:.1f} of {run['gb']:.1f}",
        f"{done / run['stored_gb']:.1f}",
        str(run["tasks"]),
        f"{core_seconds(run):.0f}",
        f"{1e3 * done / core_seconds(run):.2f}",
        f"{1e3 * done / run['wall_s']:.1f}",
        f"{max((mb for role, mb in run['peak_mb'].items() if role.endswith('workers')), default=0):.0f}",
        f"{overhead(run):.1%}" if of_workers(run) else "-",
        ", ".join(run["kills"]) or "-",
        "yes" if run["verified"] else "**no**",
    ]
