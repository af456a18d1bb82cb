"""The documents run: the blocks of each, one after another in one folder, but for those that say why not."""

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.format.error_spec import parse_error
from isopress.format.presets import FALLBACK, PRESETS, QUANTITIES
from isopress.format.store.write import write
from tests.datasets import smooth
from tests.range_server import Ranges

ROOT = Path(__file__).parent.parent
ROOMS = ("codec", "format", "cli", "benchmarks")
READMES = sorted([ROOT / "README.md", *(path for room in ROOMS for path in (ROOT / room).rglob("README.md"))])
BLOCK = re.compile(r"^```(python|sh)(?: (skip: [^\n]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks(readme: Path) -> list[tuple[str, str, str]]:
    """Return (language, reason not to run it, code) of every block of code."""
    return BLOCK.findall(readme.read_text())


def name_of(readme: Path) -> str:
    return readme.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where blocks run: it holds a small `era5.zarr`, as the first command of the README leaves one, and two days."""
    axes = {"latitude": np.arange(90, -91, -6.0), "longitude": np.arange(0, 360, 6.0)}
    t2m = 280 + 20 * np.cos(np.deg2rad(axes["latitude"]))[:, None] + np.cos(np.deg2rad(axes["longitude"]))
    ds = xr.Dataset({"t2m": (("time_index", *axes), np.stack([t2m, t2m + 1]).astype("f4"), {"units": "K"})}, axes)
    ds.to_netcdf(tmp_path / "era5.nc")
    write(str(tmp_path / "era5.nc"), tmp_path / "era5.zarr", errors=[parse_error("0.1")])
    hours = ds.isel(time_index=[0] * 16).rename(time_index="time")
    hours = hours.assign_coords(time=("time", np.arange(16), {"units": "hours since 2020-01-06"}))
    for name, part in (("monday", slice(8)), ("tuesday", slice(8, 16))):
        hours.isel(time=part).to_netcdf(tmp_path / f"{name}.nc")
    return tmp_path


# What a process does with the blocks of a README: `isopress` is called here, so that all is imported once.
RUN = """
import json, shlex, sys
from pathlib import Path
from click.testing import CliRunner
from isopress.cli.main import main

for language, code in json.loads(sys.argv[1]):
    if language == "python":
        exec(compile(code, "a block", "exec"), {})
    for line in code.replace("\\\\\\n", " ").splitlines() if language == "sh" else ():
        (name, *words), into = shlex.split(line, comments=True), None
        if ">" in words:
            *words, _, into = words
        assert name == "isopress", line
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, (line, done.stderr)
        if into:
            Path(into).write_text(done.stdout)
"""


@pytest.mark.parametrize("readme", [r for r in READMES if any(not b[1] for b in blocks(r))], ids=name_of)
def test_the_blocks_of_a_readme_run_without_a_warning(readme: Path, folder: Path) -> None:
    run = json.dumps([(language, code) for language, skipped, code in blocks(readme) if not skipped])
    command = [sys.executable, "-W", "error", "-c", RUN, run]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{readme}\n{done.stderr}"


def test_every_block_has_a_language_that_is_run_or_none() -> None:
    for readme in READMES:
        fences = re.findall(r"^```(.*)$", readme.read_text(), re.MULTILINE)
        for opening in fences[::2]:
            assert opening in ("", "text", "toml") or re.fullmatch(r"(python|sh)( skip: .+)?", opening), name_of(readme)


def test_the_readme_opens_with_two_commands_and_is_short() -> None:
    first, second = [code for language, _, code in blocks(ROOT / "README.md") if language == "sh"][:2]
    assert '".[sample]"' in first
    assert "isopress compress sample:era5" in first
    assert '".[test]"' in second
    assert "pytest" in second
    assert first.count("\n") == second.count("\n") == 1
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_every_link_to_a_file_leads_somewhere(readme: Path) -> None:
    for target in LINK.findall(readme.read_text()):
        assert "://" in target or (readme.parent / target).exists(), target


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every verb, those of groups included, as its words and its command."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


def options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts if name.startswith("--")} | {"--help"}


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_every_verb_and_option_that_a_readme_shows_exists(readme: Path) -> None:
    verbs = dict(commands(main))
    for language, _, code in blocks(readme):
        if language == "sh":
            for line in re.findall(r"\bisopress ([a-z].*)", code.replace("\\\n", " ")):
                words = tuple(re.split(r"\s*[;&|>]", line)[0].split())
                verb = next((words[:size] for size in (2, 1) if words[:size] in verbs), None)
                assert verb, line
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(words)))
                assert named <= options(verbs[verb]), line


def test_the_verbs_of_the_command_line_are_all_described_with_all_their_options() -> None:
    text = (ROOT / "cli/README.md").read_text()
    for words, command in commands(main):
        assert f"isopress {' '.join(words)}" in text
        for option in options(command) - {"--help"}:
            assert option in text, f"{words}: {option}"


def test_the_table_of_presets_is_that_of_the_code() -> None:
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", (ROOT / "cli/README.md").read_text(), re.MULTILINE))
    for quantity in QUANTITIES:
        cells = [cell.strip() for cell in rows[quantity.label].split("|")]
        assert cells[-len(PRESETS) :] == [f"`{bound}`" for bound in quantity.bounds]
        assert all(f"`{unit}`" in cells[0] for unit in quantity.units if unit), quantity.label
    assert rows["anything else"].endswith(" | ".join(f"`{bound}`" for bound in FALLBACK))


def test_ci_finds_the_second_command_alone_between_its_marks() -> None:
    marked = re.search(r"<!-- tests -->\n```.*\n(.*)\n```\n<!-- end -->", (ROOT / "README.md").read_text())
    assert marked
    assert marked[1] == blocks(ROOT / "README.md")[2][2].strip()


def test_the_tests_that_stand_behind_a_promise_exist() -> None:
    named = re.findall(r"`((?:[a-z]+/)?[a-z0-9_*]+\.py|spec/)`", (ROOT / "format" / "GUARANTEES.md").read_text())
    assert len(named) > 12
    for name in named:
        assert list((ROOT / "tests").glob(name)), name


RECIPES = (ROOT / "format" / "RECIPES.md").read_text()
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SECTIONS = SECTION.findall(RECIPES)
RECIPE_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NEEDS = {"A dask cluster": "distributed", "A bucket": "s3fs", "Publish by HTTP and read one day": "aiohttp"}


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A week of hours, a file for each day."""
    folder = tmp_path_factory.mktemp("recipes")
    for name in ("days", "public"):
        (folder / name).mkdir()
    for day, name in enumerate(NAMES):
        axes = {"time": ("time", np.arange(24) + 24 * day, {"units": "hours since 2020-01-06"})}
        t2m = ("time", "latitude", "longitude"), 280 + smooth((24, 12, 24), day), {"units": "K"}
        ds = xr.Dataset({"t2m": t2m}, axes | {"latitude": np.linspace(80, -80, 12), "longitude": np.arange(24) * 15.0})
        ds.to_netcdf(folder / (f"{name}.nc" if day > 4 else f"days/{day}-{name}.nc"))
    return folder


@pytest.fixture(scope="module")
def web(week: Path) -> Iterator[str]:
    """A server of the folder `public`."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: Ranges(*arguments, directory=str(week / "public"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are started with `&`; they end with the test."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in reversed(found):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="commands of a shell")
@pytest.mark.parametrize(("title", "text"), SECTIONS, ids=[title for title, _ in SECTIONS])
def test_a_recipe_runs(
    title: str,
    text: str,
    week: Path,
    web: str,
    request: pytest.FixtureRequest,
    background: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(NEEDS.get(title, title if title == "icechunk" else "numpy"))
    monkeypatch.chdir(week)
    if title == "A bucket":
        request.getfixturevalue("bucket")
    blocks = RECIPE_BLOCK.findall(text.replace("8786", free_port()).replace("127.0.0.1:8000", web))
    assert blocks
    for language, code in blocks:
        if language == "python":
            exec(compile(code, title, "exec"), {})
        for line in code.splitlines() if language == "sh" else ():
            run_line(line.replace("$PWD", str(week)), background)


def run_line(line: str, background: list[subprocess.Popen[bytes]]) -> None:
    """Run a line of a shell: isopress in this process, what ends with `&` beside it."""
    words = line.split()
    if words[0] == "isopress":
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.stderr}"
        return
    assert words[-1] == "&", line
    command = [sys.executable, "-m", *words[:-1]]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    background.append(subprocess.Popen(command, start_new_session=True, **silent))


def test_every_recipe_that_was_promised_is_there() -> None:
    titles = " ".join(title for title, _ in SECTIONS).lower()
    for word in ("folder of daily netcdf", "append tomorrow", "dask cluster", "bucket", "http", "icechunk", "netcdf"):
        assert word in titles
