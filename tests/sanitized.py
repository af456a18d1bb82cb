"""Run tests on kernels built with the address and undefined-behaviour sanitizers.

    python -m tests.sanitized tests/codec/test_golden.py tests/codec/test_hostile_bytes.py

`--build FOLDER` only builds, which needs nothing but Python; `--built FOLDER`, before the tests, takes what is there.

Every out-of-bounds access, overflow of a signed number, bad shift or misaligned access of compiled code ends the
process with a report. Needs gcc or clang and their runtime; `tests.soak --sanitize` uses the same build.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULE = "isopress.codec.native._kernels"
LIBRARY = "_kernels.so"
VARIABLE = "ISOPRESS_TEST_KERNELS"  # where this process finds the build
FLAGS = ("-g", "-O1", "-fPIC", "-shared", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all")  # fmt: skip


def build(folder: Path) -> Path:
    """Compile the sources that pyproject.toml names into `folder`, with the sanitizers."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    flags = [flag for flag in settings["extra-compile-args"] if not flag.startswith("-O")]
    sources = [str(ROOT / source) for source in settings["sources"]]
    include = "-I" + sysconfig.get_path("include")
    subprocess.run([compiler(), *FLAGS, *flags, include, *sources, "-o", str(folder / LIBRARY)], check=True)
    return folder / LIBRARY


def compiler() -> str:
    """Return the C compiler: CC, or gcc."""
    return os.environ.get("CC", "gcc")


def environment(library: Path) -> dict[str, str]:
    """Return the environment of a process that is to use `library`: the sanitizer must be loaded before Python."""
    runtime = subprocess.run([compiler(), "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    # Python and its packages leave memory behind at exit; that is not what is looked for.
    options = "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
    return {**os.environ, VARIABLE: str(library), "LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": options,
            "UBSAN_OPTIONS": "print_stacktrace=1"}  # fmt: skip


def load() -> None:
    """Put the build, if this process is to use one, in place of the installed kernels."""
    library = os.environ.get(VARIABLE)
    if not library:
        return
    spec = importlib.util.spec_from_file_location(MODULE, library)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[MODULE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from isopress.codec.native.dispatch import kernels

    if kernels is not module:
        raise SystemExit("the kernels were imported before those with sanitizers")


def run(module: str, arguments: list[str], library: Path | None = None) -> int:
    """Run `python -m module arguments` with the kernels loaded so, built now if they are not; return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, *arguments]
        library = library or build(Path(folder))
        return subprocess.run(command, env=environment(library), check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    first, *rest = sys.argv[1:] or [""]
    if first == "--build":
        build(Path(rest[0]))
        sys.exit()
    built, tests = (Path(rest[0]) / LIBRARY, rest[1:]) if first == "--built" else (None, sys.argv[1:])
    sys.exit(run("pytest", ["-p", "tests.sanitized", "-p", "no:cacheprovider", "-q", *tests], built))

load()  # as a plugin of pytest, before any test is imported
