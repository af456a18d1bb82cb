"""Fixtures that more than one file of tests uses."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# As the command line does it, before numpy or torch start their threads: two processes of tests share two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
# Golden payloads of a VAEformer need weights that no installation has.
os.environ.setdefault("ISOPRESS_MODELS", str(Path(__file__).parent / "golden" / "models"))

import pytest

from isopress.format.store.write import write
from tests.datasets import errors, save_netcdf, weather
from tests.model_folders import MINE, put


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has no weights yet, and no other folder but that of the package."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("ISOPRESS_MODELS", raising=False)
    return tmp_path / "data" / "isopress" / "models"


@pytest.fixture
def extra(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the environment variable names, with weights called `mine`."""
    folder = tmp_path / "extra"
    put(folder, "mine", MINE)
    monkeypatch.setenv("ISOPRESS_MODELS", str(folder))
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A server of buckets on this machine; one for all tests, as s3fs keeps its connections."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an empty bucket of that server, where S3 is looked for."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "x")
    where = {"AWS_ENDPOINT_URL": s3_server, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    for key, value in (keys | where).items():
        monkeypatch.setenv(key, value)
    files = fsspec.filesystem("s3")
    if files.exists("archive"):
        files.rm("archive", recursive=True)
    files.mkdir("archive")
    return "archive"


@pytest.fixture
def seeded() -> None:
    """Torch's random numbers are the same in every test."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def netcdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of all kinds of variables; not to be changed."""
    return save_netcdf(weather(), tmp_path_factory.mktemp("source") / "weather.nc")


@pytest.fixture(scope="session")
def store(netcdf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store made of it; not to be changed."""
    path = tmp_path_factory.mktemp("store") / "weather.zarr"
    write(str(netcdf), path, errors=errors("0.1", "tp=pointwise:1%,floor=1e-6", "index=range:1e-2"))
    return path
