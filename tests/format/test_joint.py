"""Joint variables: several in one array behind the scenes, ordinary ones for everybody who reads."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner, Result

import isopress
from isopress import ArgumentError
from isopress.cli.main import main
from isopress.codec.encode import ChunkDecoder
from isopress.codec.errors import CorruptPayloadError
from isopress.format import IsopressCodec, JointCodec, api
from isopress.format.decode_cache import CACHE
from isopress.format.error_spec import parse_error
from isopress.format.report.info import read_report
from isopress.format.store.restore import restore
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.contract import smooth
from tests.datasets import raw, save_zarr

TIMES, H, W = 7, 18, 20
DIMS = ("time", "lat", "lon")
BOUNDS = {"u": 0.05, "v": 0.1, "t": 0.2}


def winds() -> xr.Dataset:
    """Return wind in two components, one of them with missing values, and a temperature that goes its own way."""
    u = smooth(TIMES, H, W).astype("f4") - 280
    v = (0.7 * u + smooth(TIMES, H, W)[::-1] - 280).astype("f4")
    v[2:, :3] = np.nan
    return xr.Dataset(
        {
            "u": (DIMS, u, {"units": "m s-1", "long_name": "eastward"}),
            "v": (DIMS, v, {"units": "m s-1", "long_name": "northward"}),
            "t": (DIMS, smooth(TIMES, H, W).astype("f4"), {"units": "K"}),
            "soil": (("lat", "lon"), np.arange(H * W, dtype="i2").reshape(H, W)),
        },
        coords={"time": np.arange(TIMES), "lat": np.linspace(90, -90, H), "lon": np.arange(W) * 18.0},
        attrs={"title": "made up"},
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "winds.zarr"
    winds().to_zarr(path, consolidated=False)
    return path


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "winds.zarr"
    errors = [parse_error(f"{name}={bound}") for name, bound in BOUNDS.items()]
    write(str(source), path, errors=errors, joint=["u,v"], chunks={"time": 4}, context="block")
    return path


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy.zarr"))


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ChunkDecoder]]:
    """Every decoder that is made from here on."""
    CACHE.clear()
    made: list[ChunkDecoder] = []

    def make(*arguments: Any) -> ChunkDecoder:
        made.append(ChunkDecoder(*arguments))
        return made[-1]

    monkeypatch.setattr(api, "ChunkDecoder", make)
    yield made
    CACHE.clear()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def assert_all_kept(opened: xr.Dataset) -> None:
    """Assert that a dataset is `winds` within its bounds, and says so like any other."""
    before = winds()
    assert set(opened.variables) == set(before.variables)
    for name in before.variables:
        assert opened[name].dims == before[name].dims
        assert opened[name].dtype == before[name].dtype
        assert {key: opened[name].attrs[key] for key in before[name].attrs} == before[name].attrs
        if name not in BOUNDS:
            assert np.array_equal(opened[name], before[name])
            continue
        assert np.array_equal(np.isnan(opened[name]), np.isnan(before[name]))
        assert float(np.abs(opened[name].astype("f8") - before[name].astype("f8")).max()) <= BOUNDS[name]


@pytest.mark.parametrize("consolidated", [True, False])
def test_xarray_shows_ordinary_variables(store: Path, consolidated: bool) -> None:
    with xr.open_zarr(store, consolidated=consolidated) as opened:
        assert_all_kept(opened)
        assert opened.u.encoding["chunks"] == (4, H, W)
        assert opened.u.attrs["isopress_bound"] == 0.05
        assert opened.v.isel(time=3, lat=slice(4, 6)).shape == (2, W)


def test_variables_have_no_chunks_of_their_own(store: Path) -> None:
    assert {path.name for path in (store / "u").rglob("*")} == {"zarr.json"}
    codecs = json.loads((store / "u" / "zarr.json").read_text())["codecs"]
    assert codecs == [{"name": "isopress.joint", "configuration": {"array": "_joint/0", "channel": 0}}]
    joint: Any = zarr.open_group(store, mode="r")["_joint/0"]
    assert (joint.shape, joint.chunks) == ((2, TIMES, H, W), (2, 4, H, W))
    assert joint.metadata.dimension_names == ("channel", *DIMS)
    assert joint.attrs["channel"] == ["u", "v"]
    payload = (store / "_joint" / "0" / "c" / "0" / "0" / "0" / "0").read_bytes()
    info = isopress.inspect(payload)
    assert (info.mode, info.bound, info.resolved_bound) == ("joint", 1.0, 1.0)
    assert 0 < info.rmse <= info.max_error <= 1


def test_no_chunk_is_decoded_twice(store: Path, decoders: list[ChunkDecoder]) -> None:
    with xr.open_zarr(store) as opened:
        opened[["u", "v"]].compute()
    assert len(decoders) == 2
    assert sum(decoder.decoded for decoder in decoders) == 2 * 2 * 4  # chunks, variables, times


def test_one_time_of_one_variable_costs_its_references_only(store: Path, decoders: list[ChunkDecoder]) -> None:
    with xr.open_zarr(store) as opened:
        opened.u.isel(time=0).values, opened.u.isel(time=0, lat=2).values
    assert [decoder.decoded < 2 * 4 for decoder in decoders] == [True]


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_dask_threads_share_what_they_decode(store: Path, decoders: list[ChunkDecoder]) -> None:
    with dask.config.set(scheduler="threads"), xr.open_zarr(store, chunks={"time": 1}) as opened:
        speed = np.hypot(opened.u, opened.v).mean("time").compute()
    assert np.isfinite(speed).any()
    assert len(decoders) == 2


READER = """
import sys
import xarray as xr
assert "isopress" not in sys.modules
with xr.open_zarr(sys.argv[1]) as opened:
    assert "isopress.codec.encode" not in sys.modules, "opening loaded the codec"
    opened.load().drop_encoding().to_netcdf(sys.argv[2])
"""


def test_a_fresh_process_reads_a_copy_of_the_store(copy: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", READER, copy.name, tmp_path / "out.nc"]
    result = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with xr.open_dataset(tmp_path / "out.nc") as opened:
        assert_all_kept(opened)


@pytest.mark.parametrize("prefix", ["", "inner/winds.zarr"])
def test_zip_and_memory_stores_are_read_too(store: Path, tmp_path: Path, prefix: str) -> None:
    files = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
    files = {f"{prefix}/{name}".lstrip("/"): path for name, path in files.items()}
    with zipfile.ZipFile(tmp_path / "winds.zip", "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    memory = zarr.storage.MemoryStore({name: buffer.from_bytes(path.read_bytes()) for name, path in files.items()})
    for opened_store in (zarr.storage.ZipStore(tmp_path / "winds.zip", mode="r"), memory):
        with xr.open_zarr(opened_store, group=prefix or None, consolidated=not prefix) as opened:
            assert_all_kept(opened)


def test_info_verify_and_decompress_treat_them_like_any_other(source: Path, store: Path, tmp_path: Path) -> None:
    report = read_report(store)
    variables = {variable.name: variable for variable in report.variables}
    chunks = sum(path.stat().st_size for path in (store / "_joint").rglob("*") if path.is_file())
    group = (store / "_joint" / "zarr.json").stat().st_size
    own = sum((store / name / "zarr.json").stat().st_size for name in ("u", "v"))
    assert variables["u"].stored_nbytes + variables["v"].stored_nbytes == chunks - group + own
    assert sum(v.stored_nbytes for v in variables.values()) <= report.stored_nbytes
    assert {name: v.bound.value for name, v in variables.items() if v.bound} == BOUNDS
    assert [variables[name].joint for name in ("u", "v", "t")] == ["_joint/0", "_joint/0", None]
    assert variables["u"].models
    for name in ("u", "v"):
        stored = raw(store)[name].attrs["isopress_stored_nbytes"]
        assert 0 < stored < variables[name].stored_nbytes
        assert 0 < (variables[name].rmse or 0) <= (variables[name].max_error or 0) <= BOUNDS[name]
    assert verify(store, str(source)).kept
    for suffix in (".nc", ".zarr"):
        restore(store, tmp_path / f"out{suffix}")
        assert raw(tmp_path / f"out{suffix}")["v"].attrs.keys() == raw(source)["v"].attrs.keys()
        assert np.array_equal(raw(tmp_path / f"out{suffix}")["v"], raw(store)["v"], equal_nan=True)
    assert not (tmp_path / "out.zarr" / "_joint").exists()
    again = write(str(store), tmp_path / "again.zarr", joint=["u,v"])
    assert again.kept


def test_verify_sees_damage_in_the_joint_array(source: Path, copy: Path) -> None:
    chunk = copy / "_joint" / "0" / "c" / "0" / "1" / "0" / "0"
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    bad = {v.name: v.damage for v in verify(copy, str(source)).variables if not v.kept}
    assert set(bad) == {"u", "v"}
    shutil.rmtree(copy / "_joint")
    bad = {v.name: v.damage for v in verify(copy, str(source)).variables if not v.kept}
    assert "copy the whole store" in str(bad["u"])
    assert read_report(copy).variables  # the figures of the rest can still be had


def test_the_command_line_takes_names_and_patterns(source: Path, tmp_path: Path) -> None:
    errors = ["--error", "0.1", "--error", "t=range:1e-3", "--context", "field", "--jobs", "2"]
    result = run("compress", source, tmp_path / "out.zarr", "--joint", "[uv]", "--joint", "u, v ,t", *errors)
    assert result.exit_code == 2
    assert "in another group already" in result.stderr
    result = run("compress", source, tmp_path / "out.zarr", "--joint", "[uv],t", *errors)
    assert result.exit_code == 0, result.stderr
    assert "t, u, v: coded jointly" in " ".join(result.stdout.split())
    assert run("verify", tmp_path / "out.zarr", "--against", source, "--jobs", "2").exit_code == 0
    figures = {v["name"]: v for v in json.loads(run("info", tmp_path / "out.zarr", "--json").stdout)["variables"]}
    assert figures["t"]["error"] == "range:0.001"
    assert {figures[name]["joint"] for name in ("t", "u", "v")} == {"_joint/0"}
    assert run("decompress", tmp_path / "out.zarr", tmp_path / "out.nc").exit_code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--joint", "u"], "it takes two or more"),
        (["--joint", "u,x"], "no variable 'x'; there are: t, u, v"),
        (["--joint", "u,soil"], "soil: stored exactly"),
        (["--joint", "u,line"], "they must agree"),
        (["--joint", "u,double"], "dtype float32, but double has float64"),
        (["--joint", "line,line2"], "no (lat, lon) field"),
        (["--joint", "u,v", "--error", "u=pointwise:1%"], "takes a bound abs or range, not pointwise"),
        (["--joint", "u,v", "--error", "u=lossless"], "not lossless"),
        (["--joint", "u,constant", "--error", "range:1e-3"], "constant is coded jointly"),
        (["--joint", "u,v", "--zarr-format", "2"], "need Zarr 3"),
        (["--context", "both"], "'both' is not one of"),
    ],
)
def test_what_cannot_be_coded_jointly_is_refused(tmp_path: Path, options: list[str], reason: str) -> None:
    more = winds().assign(
        line=("time", np.arange(TIMES, dtype="f4") ** 2),
        line2=("time", np.arange(TIMES, dtype="f4")),
        double=(DIMS, smooth(TIMES, H, W)),
        constant=(DIMS, np.ones((TIMES, H, W), "f4")),
    )
    more = more[["u", "v", "t", "soil", *(name for name in more if name in ",".join(options).split(","))]]
    save_zarr(more, tmp_path / "in.zarr", 2)
    result = run("compress", tmp_path / "in.zarr", tmp_path / "out.zarr", *options)
    assert result.exit_code == 2, result.output
    assert reason in result.stderr
    assert not (tmp_path / "out.zarr").exists()


def test_a_source_with_a_variable_of_the_reserved_name_is_refused(tmp_path: Path) -> None:
    save_zarr(winds().rename(t="_joint"), tmp_path / "in.zarr", 2)
    with pytest.raises(ArgumentError, match="'_joint'"):
        write(str(tmp_path / "in.zarr"), tmp_path / "out.zarr", joint=["u,v"])


def test_an_empty_variable_stays_empty(tmp_path: Path) -> None:
    save_zarr(winds().isel(time=slice(0, 0)), tmp_path / "in.zarr", 2)
    errors = [parse_error("0.1")]
    write(str(tmp_path / "in.zarr"), tmp_path / "out.zarr", joint=["u,v"], errors=errors)
    assert raw(tmp_path / "out.zarr")["u"].shape == (0, H, W)


def test_chunks_of_nothing_but_nan_read_as_nan(tmp_path: Path) -> None:
    ds = winds()
    ds["u"][:4] = ds["v"][:4] = np.nan
    save_zarr(ds, tmp_path / "in.zarr", 2)
    write(str(tmp_path / "in.zarr"), tmp_path / "out.zarr", joint=["u,v"], chunks={"time": 4})
    assert not (tmp_path / "out.zarr" / "_joint" / "0" / "c" / "0" / "0").exists()
    assert verify(tmp_path / "out.zarr", str(tmp_path / "in.zarr")).kept


def test_joint_variables_are_read_only(copy: Path, tmp_path: Path) -> None:
    u: Any = zarr.open_group(copy, mode="r+")["u"]
    for region in (np.s_[...], np.s_[0, 0, 0], np.s_[:4]):
        with pytest.raises(ArgumentError, match="only read"):
            u[region] = 1
    with xr.open_zarr(copy) as opened:
        with pytest.raises(ArgumentError, match=r"drop_encoding\(\)"):
            opened.to_zarr(tmp_path / "again.zarr", consolidated=False)
        opened.drop_encoding().to_zarr(tmp_path / "plain.zarr", consolidated=False)
    assert_all_kept(xr.open_zarr(tmp_path / "plain.zarr", consolidated=False))


@pytest.mark.parametrize("options", [{"shards": (8, H, W)}, {"compressors": zarr.codecs.ZstdCodec()}])
def test_joint_variables_go_with_neither_shards_nor_other_codecs(copy: Path, options: dict[str, Any]) -> None:
    group = zarr.open_group(copy, mode="r+")
    options = {"chunks": (4, H, W), "compressors": None, "fill_value": np.nan} | options
    x = group.create_array("x", shape=(8, H, W), dtype="f4", serializer=JointCodec("_joint/0", 0), **options)
    with pytest.raises(ArgumentError, match="without shards and other codecs"):
        x[...] = 1
    if "shards" not in options:
        with pytest.raises(ArgumentError, match="without shards and other codecs"):
            x[...]


def test_a_store_without_its_joint_array_says_what_is_missing(copy: Path) -> None:
    shutil.rmtree(copy / "_joint" / "0")
    with xr.open_zarr(copy) as opened:
        assert opened.t.values.shape == (TIMES, H, W)
        with pytest.raises(CorruptPayloadError, match="_joint/0, which holds the values, is missing: copy the whole"):
            opened.u.load()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"GRIB", "not an isopress payload"),
        (isopress.compress(np.zeros((4, H, W), "f4"), bound=1), "for each channel"),
        (isopress.compress(np.zeros((2, 4, H, W), "f8"), bound=1), "for each channel"),
        (isopress.compress(np.zeros((1, 4, H, W), "f4"), bound=1), "channel 1 is asked for"),
        (isopress.compress(1.0, bound=1), "for each channel"),
    ],
)
def test_a_foreign_payload_in_the_joint_array_is_refused(copy: Path, payload: bytes, reason: str) -> None:
    (copy / "_joint" / "0" / "c" / "0" / "0" / "0" / "0").write_bytes(payload)
    v: Any = zarr.open_group(copy, mode="r")["v"]
    with pytest.raises(isopress.PayloadError, match=reason):
        v[0]


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        ({"array": "../other/0", "channel": 0}, "inside the group"),
        ({"array": "/etc", "channel": 0}, "inside the group"),
        ({"array": "", "channel": 0}, "inside the group"),
        ({"array": 3, "channel": 0}, "inside the group"),
        ({"array": "_joint/0", "channel": -1}, "integer >= 0"),
        ({"array": "_joint/0", "channel": True}, "integer >= 0"),
        ({"array": "_joint/0", "channel": 0.5}, "integer >= 0"),
    ],
)
def test_metadata_that_lead_elsewhere_are_refused(configuration: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        JointCodec.from_dict({"name": "isopress.joint", "configuration": configuration})


def test_a_channel_that_is_not_there_is_an_error(copy: Path) -> None:
    metadata = json.loads((copy / "u" / "zarr.json").read_text())
    metadata["codecs"][0]["configuration"]["channel"] = 2
    (copy / "u" / "zarr.json").write_text(json.dumps(metadata))
    u: Any = zarr.open_group(copy, mode="r", use_consolidated=False)["u"]
    with pytest.raises(CorruptPayloadError, match="channel 2 is asked for"):
        u[0]


def test_a_joint_codec_survives_json_and_needs_a_group() -> None:
    codec = JointCodec("_joint/0", 3)
    assert JointCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    with pytest.raises(NotImplementedError, match="no chunks of its own"):
        codec.compute_encoded_size(1, None)  # type: ignore[arg-type]
    options: dict[str, Any] = {"dtype": "f4", "serializer": codec, "compressors": None}
    for chunk_key_encoding in ({"name": "default"}, {"name": "v2"}):
        x = zarr.create_array({}, shape=(4, 5), chunk_key_encoding=chunk_key_encoding, **options)  # type: ignore[arg-type]
        with pytest.raises(CorruptPayloadError, match="no chunk of an array in a group"):
            x[...]


def test_several_bounds_need_a_first_axis_of_that_length() -> None:
    x = smooth(2, 6, 7)
    for bound in ([0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2], "f4")):
        payload = isopress.compress(x, bound=bound)
        error = np.abs(isopress.decompress(payload) - x).max((1, 2))
        assert (error <= np.array(bound, "f8")).all()
    with pytest.raises(ArgumentError, match=r"3 bounds need chunks of shape \(3, ..., lat, lon\).*got \(2, 6, 7\)"):
        isopress.compress(x, bound=[1, 2, 3])
    for settings in ({"bound": []}, {"bound": [1, -1]}, {"bound": [1, "2"]}, {"bound": [1, 2], "mode": "range"}):
        with pytest.raises(ArgumentError):
            isopress.compress(x, **settings)


def test_the_joint_array_is_an_ordinary_array_of_its_codec() -> None:
    codec = IsopressCodec(bound=[0.1, 0.2])
    assert codec.to_dict()["configuration"] == {"mode": "abs", "bound": [0.1, 0.2]}
    assert IsopressCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert hash(codec) == hash(IsopressCodec(bound=(0.1, 0.2)))
    x = smooth(2, 6, 7)
    options: dict[str, Any] = {"shape": x.shape, "dtype": "f8", "serializer": codec, "compressors": None}
    array = zarr.create_array({}, chunks=x.shape, **options)
    array[...] = x
    assert (np.abs(np.asarray(array[...]) - x).max((1, 2)) <= [0.1, 0.2]).all()
    with pytest.raises(ArgumentError, match="2 bounds need chunks"):
        zarr.create_array({}, chunks=(1, 6, 7), **options)
