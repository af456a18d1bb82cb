"""The recipes run, block by block in one folder, with a server, a bucket and a cluster on this machine."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from isopress.cli.main import main
from tests.datasets import smooth
from tests.range_server import Ranges

RECIPES = (Path(__file__).parent.parent / "format" / "RECIPES.md").read_text()
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SECTIONS = SECTION.findall(RECIPES)
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NEEDS = {"A dask cluster": "distributed", "A bucket": "s3fs", "Publish by HTTP and read one day": "aiohttp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def web(folder: Path) -> Iterator[str]:
    """A server of the folder `public`."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: Ranges(*arguments, directory=str(folder / "public"))
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
    folder: Path,
    web: str,
    request: pytest.FixtureRequest,
    background: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(NEEDS.get(title, title if title == "icechunk" else "numpy"))
    monkeypatch.chdir(folder)
    if title == "A bucket":
        request.getfixturevalue("bucket")
    blocks = BLOCK.findall(text.replace("8786", free_port()).replace("127.0.0.1:8000", web))
    assert blocks
    for language, code in blocks:
        if language == "python":
            exec(compile(code, title, "exec"), {})
        for line in code.splitlines() if language == "sh" else ():
            run(line.replace("$PWD", str(folder)), background)


def run(line: str, background: list[subprocess.Popen[bytes]]) -> None:
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
