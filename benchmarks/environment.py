"""Where a result was measured: commit, machine, versions, threads."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
RESULTS = Path(__file__).resolve().parent / "results"


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """Return commit, machine, thread variables and the versions of `packages` (None: not installed)."""
    return {
        "commit": commit(),
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "architecture": platform.machine(),
            "load_average": os.getloadavg()[0],  # above 0 at the start of a speed run: other work disturbs it
        },
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in packages},
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "seed": None,  # nothing is drawn at random
    }


def commit() -> str:
    """Return the commit, with "+changes" when files of the working tree differ; "unknown" outside git."""
    here = Path(__file__).resolve().parent
    head = _git(here, "rev-parse", "HEAD")
    changed = _git(here, "status", "--porcelain", "--", "..", ":!results", ":!RESULTS.md", ":!../README.md")
    return "unknown" if head is None else head + ("+changes" if changed else "")


def cpu_model() -> str:
    """Return the processor's name as the system states it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
