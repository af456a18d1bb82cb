"""Stores with targets: compressed, opened, verified and taken along, as users do it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner, Result

import isopress
from isopress.cli.main import main
from isopress.codec.encoded import Method
from isopress.codec.errors import BoundError
from isopress.format import Isopress, IsopressCodec, api, decode_cache
from isopress.format.error_spec import parse_error
from isopress.format.report.info import read_report
from isopress.format.settings import Settings
from isopress.format.store.embedded_models import needed
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from tests.contract import Array, bits
from tests.datasets import raw, save_netcdf
from tests.fields import drifting_fields

DIMS = ("time", "lat", "lon")
SHAPE = (5, 48, 96)
ERRORS = ("t2m=ratio:30", "u10=rmse:0.3", "tp=0.1", "sst=rmse:0.05")
OPTIONS = [*(word for error in ERRORS for word in ("--error", error)), "--chunk", "time=2"]


def fields(seed: int) -> Array:
    """Return float32 fields of deviation 8 that move slowly."""
    x = drifting_fields(*SHAPE, seed=seed)
    return (8 * (x - x.mean()) / x.std()).astype("f4")


def dataset() -> xr.Dataset:
    sst = 290 + fields(2)
    sst[:, 10:20, 30:60] = np.nan
    sst[1, 0, :3] = np.inf, -np.inf, np.nan
    variables = {
        "t2m": (DIMS, 280 + fields(0), {"units": "K"}),
        "u10": (DIMS, fields(1).astype("f8"), {"units": "m s-1"}),
        "sst": (DIMS, sst, {"units": "K"}),
        "tp": (DIMS, fields(3), {"units": "mm"}),
        "tiny": (("time", "few"), np.arange(15, dtype="f4").reshape(5, 3) ** 2, {"units": "K"}),
        "soil": (("lat", "lon"), np.arange(48 * 96, dtype="i4").reshape(48, 96)),
    }
    return xr.Dataset(variables, {"time": ("time", np.arange(5.0), {"units": "hours since 2000-01-01"})})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_netcdf(dataset(), tmp_path_factory.mktemp("source") / "weather.nc")


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "v3.zarr"
    result = run("compress", source, path, *OPTIONS, "--error", "tiny=ratio:40")
    assert result.exit_code == 0, result.stderr
    assert "tiny: 3 chunks off ratio 40 by over 3 %" in result.stdout
    return path


def payloads(store: Path, name: str) -> list[bytes]:
    """Return the chunks of a variable in their order."""
    files = (path for path in (store / name).rglob("*") if path.is_file() and not path.name.startswith((".z", "zarr")))
    return [path.read_bytes() for path in sorted(files)]


def rmse(a: Array, b: Array) -> float:
    finite = np.isfinite(a)
    return float(np.sqrt(np.mean((a[finite].astype("f8") - b[finite]) ** 2)))


def test_every_chunk_meets_its_target(store: Path) -> None:
    before, after = dataset(), xr.open_zarr(store, decode_times=False)
    for start in range(0, 5, 2):
        part = slice(start, start + 2)
        assert rmse(before.u10.values[part], after.u10.values[part]) <= 0.3 * 1.03
        assert rmse(before.sst.values[part], after.sst.values[part]) <= 0.05 * 1.03
    for payload in payloads(store, "t2m"):
        info = isopress.inspect(payload)
        assert (info.mode, info.ratio, info.target_rmse, info.bound) == ("latent", 30.0, None, None)
        assert info.original_nbytes / len(payload) >= 30 / 1.03
        assert info.method == Method.LATENT
    assert float(abs(before.tp - after.tp).max()) <= 0.1
    assert after.soil.equals(before.soil)


def test_missing_and_infinite_values_are_where_they_were(store: Path) -> None:
    before, after = dataset().sst.values, xr.open_zarr(store).sst.values
    special = ~np.isfinite(before)
    assert np.isfinite(after[~special]).all()
    assert np.array_equal(before[special], after[special], equal_nan=True)


def test_the_store_tells_target_and_achievement(store: Path) -> None:
    report = {variable["name"]: variable for variable in json.loads(run("info", store, "--json").stdout)["variables"]}
    assert report["t2m"]["bound"] == {"mode": "latent", "ratio": 30.0, "rmse": None, "exact": []}
    assert report["u10"]["bound"] == {"mode": "latent", "ratio": None, "rmse": 0.3, "exact": []}
    errors = [report[name]["error"] for name in ("t2m", "u10", "tp")]
    assert errors == ["ratio:30.0", "rmse:0.3", "abs:0.1"]
    assert [report[name]["missed_chunks"] for name in ("t2m", "tiny", "u10")] == [0, 3, 0]
    before, after = dataset(), xr.open_zarr(store, decode_times=False)
    for name in ("t2m", "u10", "sst"):
        assert report[name]["rmse"] == pytest.approx(rmse(before[name].values, after[name].values))
        assert report[name]["max_error"] >= report[name]["rmse"] > 0
    assert [len(report[name]["models"]) for name in ("t2m", "u10")] == [1, 1]
    attrs = after.t2m.attrs
    assert (attrs["isopress_mode"], attrs["isopress_target_ratio"]) == ("latent", 30.0)
    shown = run("info", store).stdout
    assert "ratio 30" in shown
    assert "RMSE 0.3 m s-1" in shown


def test_verify_keeps_what_was_written_and_sees_a_worse_chunk(source: Path, store: Path, tmp_path: Path) -> None:
    assert run("verify", store, "--against", source).exit_code == 0
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    # One of three chunks on twice its target: the variable as a whole still is near it.
    path = sorted(p for p in (copy / "u10").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr")))[0]
    values = isopress.decompress(path.read_bytes())
    path.write_bytes(isopress.compress(dataset().u10.values[:2].astype(values.dtype), mode="latent", rmse=0.6))
    result = run("verify", copy, "--against", source, "--json")
    assert result.exit_code == 1
    bad = [variable for variable in json.loads(result.stdout)["variables"] if not variable["kept"]]
    assert [(variable["name"], variable["violations"]) for variable in bad] == [("u10", 1)]
    assert result.stderr == "isopress: u10: 1 chunks or values break the target or the missing-value mask\n"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    assert "checksum" in run("verify", copy, "--against", source).stderr


def test_plain_xarray_reads_a_store_in_a_fresh_process_and_loads_torch_for_latents_alone(
    store: Path, tmp_path: Path
) -> None:
    code = f"""
import sys
import xarray as xr

dataset = xr.open_zarr({str(store)!r})
assert not {{"torch", "safetensors", "isopress.codec.chunk.encode"}} & set(sys.modules), "opening"
tp = dataset["tp"].values
assert "torch" not in sys.modules, "reading a bounded variable"
u10 = dataset["u10"][1, 3:5].values
u10.tofile({str(tmp_path / "u10")!r})
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = xr.open_zarr(store).u10[1, 3:5].values
    np.testing.assert_array_equal(np.fromfile(tmp_path / "u10").reshape(2, -1), expected)


def test_a_store_with_latents_becomes_an_ordinary_dataset_again(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    assert run("decompress", store, out).exit_code == 0
    plain, compressed = raw(out), raw(store)
    np.testing.assert_array_equal(plain.t2m.values, compressed.t2m.values)
    assert not [key for key in plain.t2m.attrs if key.startswith("isopress")]


def test_the_weights_of_latents_travel_with_a_store(source: Path, tmp_path: Path) -> None:
    options = ["--error", "ratio:30", "--embed-models", "--chunk", "time=5"]
    assert run("compress", source, tmp_path / "out.zarr", *options).exit_code == 0
    (model,) = needed(tmp_path / "out.zarr")
    (file,) = (tmp_path / "out.zarr" / "_models").glob("*.safetensors")
    assert file.name.startswith(model)
    (record,) = json.loads(run("models", "install", tmp_path / "out.zarr", "--json").stdout)["models"]
    assert (record["kind"], record["new"]) == ("latent", False)


def test_a_chunk_that_misses_its_error_is_never_published(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = api.encode

    def careless(x: Array, settings: Settings) -> bytes:
        return honest(x, replace(settings, rmse=0.5) if settings.rmse else settings)

    monkeypatch.setattr(api, "encode", careless)
    with pytest.raises(BoundError, match=r"u10\[0:5, 0:48, 0:96\]: 1 values or chunks read back break the target"):
        write(str(source), tmp_path / "out.zarr", errors=[parse_error("lossless"), parse_error("u10=rmse:0.3")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["v2", "v3", "v3 shards"])
def test_targets_go_with_every_kind_of_zarr_array(kind: str, tmp_path: Path) -> None:
    x = fields(0)
    codec: dict[str, Any] = {"serializer": IsopressCodec(mode="latent", rmse=0.2), "compressors": ()}
    encoding = {
        "v2": {"compressors": [Isopress(mode="latent", rmse=0.2)], "chunks": (5, 48, 96)},
        "v3": codec | {"chunks": (5, 48, 96)},
        "v3 shards": codec | {"chunks": (5, 48, 48), "shards": (5, 48, 96)},
    }[kind]
    ds = xr.Dataset({"t": (DIMS, x)})
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=int(kind[1]), encoding={"t": encoding}, consolidated=False)  # type: ignore[call-overload]
    ds.to_netcdf(tmp_path / "a.nc")
    opened = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert 0.2 / 2 < rmse(x, opened.t.values) <= 0.2 * 1.03
    report = verify(tmp_path / "a.zarr", str(tmp_path / "a.nc"))
    assert report.kept
    assert report.variables[0].error == "rmse:0.2"
    assert len(needed(tmp_path / "a.zarr")) == 1


def test_a_chunk_of_latents_is_decoded_once_for_all_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    x = fields(0)
    array = zarr.create_array(
        {},
        shape=x.shape,
        dtype="f4",
        chunks=x.shape,
        serializer=IsopressCodec(mode="latent", ratio=30),
        compressors=None,
    )
    array[...] = x
    started = []
    honest = api._decoder
    monkeypatch.setattr(api, "_decoder", lambda data: started.append(data) or honest(data))
    monkeypatch.setattr(api, "CACHE", decode_cache.DecodeCache(2**24))
    parts = np.stack([np.asarray(array[time]) for time in range(len(x))])
    np.testing.assert_array_equal(parts, array[...])
    assert len(started) == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("order", "CF")
def test_byte_order_and_memory_order_come_back(dtype: str, order: Any) -> None:
    x = np.asarray(fields(0)[:2], dtype, order=order)
    payload = isopress.compress(x, mode="latent", rmse=0.5)
    y = isopress.decompress(payload)
    assert (y.dtype, y.shape, y.flags.f_contiguous) == (x.dtype, x.shape, order == "F")
    info = isopress.inspect(payload)
    assert rmse(x, y) == pytest.approx(info.rmse, rel=1e-6)
    assert info.rmse <= 0.5 * 1.03
    assert bits(y) == bits(isopress.decompress(isopress.compress(x.copy(), mode="latent", rmse=0.5)))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((0, 4, 5), "f4"),
        np.float32(3.5),
        np.full((40, 50), 7.0, "f4"),
        np.full((4, 5), np.nan),
        np.array([[1.0, -0.0, np.inf], [np.nan, 2.0, 1e-300]]),
        np.arange(12.0).reshape(1, 12),
        np.random.default_rng(0).normal(size=(9, 11)).astype("f4"),
    ],
    ids=["empty", "no axis", "constant", "only NaN", "special", "one row", "noise"],
)
def test_strange_arrays_keep_what_an_error_promises(x: Array) -> None:
    y = isopress.decompress(isopress.compress(x, mode="latent", rmse=0.1))
    assert (np.shape(y), y.dtype) == (np.shape(x), np.asarray(x).dtype)
    x = np.asarray(x)
    assert np.array_equal(x[~np.isfinite(x)], y[~np.isfinite(x)], equal_nan=True)
    if np.isfinite(x).any():
        assert rmse(x, y) <= 0.1 * 1.03
    assert isopress.inspect(isopress.compress(x, mode="latent", ratio=50)).ratio == 50


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(isopress.ModelNotFoundError, match=r"no latent weights 'nix'.*models install"):
        isopress.compress(fields(0), mode="latent", ratio=30, model="nix")
    with pytest.raises(isopress.ModelNotFoundError, match=r"'block-0\.8' are pyramid weights"):
        isopress.compress(fields(0), mode="latent", ratio=30, model="block-0.8")


def test_zarr_2_holds_the_same_payloads_and_says_the_same_of_them(source: Path, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "v2.zarr"
    options = [*OPTIONS, "--error", "tiny=ratio:40", "--zarr-format", "2"]
    assert run("compress", source, other, *options).exit_code == 0
    found = [{variable.name: variable for variable in read_report(path).variables} for path in (store, other)]
    for name in ("t2m", "u10", "sst", "tp", "tiny"):
        assert payloads(store, name) == payloads(other, name)
        one, two = (report[name] for report in found)
        assert (one.rmse, one.max_error, one.bound, one.models) == (two.rmse, two.max_error, two.bound, two.models)
        np.testing.assert_array_equal(raw(other)[name].values, raw(store)[name].values)
