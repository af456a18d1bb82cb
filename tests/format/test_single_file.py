"""Zarr: single files, and the extension's documents."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from isopress.cli.main import main
from isopress.codec.errors import ArgumentError, UnsupportedVersionError
from isopress.codec.limits import MAX_EFFORT
from isopress.format.payload import VERSION
from isopress.format.report.info import read_report
from isopress.format.settings import CONTEXTS, MODES, Settings
from isopress.format.store.restore import restore
from isopress.format.store.verify import verify
from isopress.format.store.write import write
from isopress.format.zarr.v3_codec import IsopressCodec
from tests.datasets import errors, smooth
from tests.make_zarr_sample import BOUND, FOLDER, SAMPLE, values

# --- stores in a single file: written, opened by xarray, checked, taken back ------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "in.nc"
    t = (("time", "lat", "lon"), smooth((6, 20, 24)), {"units": "K"})
    xr.Dataset({"t": t}, {"time": ("time", np.arange(6), {"units": "hours since 2020-01-01"})}).to_netcdf(path)
    return str(path)


def test_a_single_file_is_a_store(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out.isop.zip"
    report = write(source, out, errors=errors("0.05"), chunks={"time": 1}, embed_models=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.isop.zip"]
    assert report.stored_nbytes == out.stat().st_size
    with xr.open_dataset(out) as ds, xr.open_dataset(source) as before:
        assert ds.encoding["source"] == str(out)
        assert float(abs(ds.t - before.t).max()) <= 0.05
        assert ds.time.equals(before.time)
        assert not {"serializer", "compressors"} & set(ds.t.encoding)
        ds.to_zarr(tmp_path / "plain.zarr", zarr_format=3, consolidated=False)
    assert "isopress" not in (tmp_path / "plain.zarr" / "t" / "zarr.json").read_text().replace("isopress_", "")
    assert verify(out, source).kept
    assert read_report(out).variables[0].chunks == (1, 20, 24)
    restore(out, tmp_path / "back.nc")
    with xr.open_dataset(tmp_path / "back.nc") as back:
        assert back.t.attrs == {"units": "K"}


def test_equal_runs_make_equal_files_and_replace_nothing_unasked(source: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(source, tmp_path / f"{name}.isop.zip", errors=errors("0.05"))
    assert (tmp_path / "a.isop.zip").read_bytes() == (tmp_path / "b.isop.zip").read_bytes()
    with pytest.raises(ArgumentError, match="--overwrite"):
        write(source, tmp_path / "a.isop.zip")
    result = CliRunner().invoke(main, ["compress", source, str(tmp_path / "a.isop.zip"), "--overwrite"])
    assert result.exit_code == 0, result.stderr
    with pytest.raises(ArgumentError, match=r"ends in \.isop\.zip"):
        write(source, tmp_path / "a.zip")


def test_the_engine_claims_nothing_else() -> None:
    engine = xr.backends.list_engines()["isopress"]
    names = ("a.isop.zip", Path("a.isop.zip"), "a.zip", "a.zarr", "a.zarr.zip", b"a.isop.zip", object())
    assert [engine.guess_can_open(name) for name in names] == [True, True, False, False, False, False, False]


# --- what is kept for the registry of Zarr extensions is what the codec does ------------------------------------------

WHOLE = json.loads((FOLDER / "schema.json").read_text())
SCHEMA = WHOLE["properties"]["configuration"]


def test_the_schema_is_one_and_takes_what_the_codec_writes_and_nothing_else() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(WHOLE)
    for settings in ({"mode": "lossless"}, {"mode": "abs", "bound": [0.1, 0.5]}, {"mode": "latent", "ratio": 200}):
        assert validator(WHOLE).is_valid(IsopressCodec(**settings).to_dict())
    for wrong in ({"mode": "other"}, {"bound": 0.1}, {"mode": "abs", "bound": -1}, {"mode": "abs", "quality": 3}):
        assert not validator(WHOLE).is_valid({"name": "isopress", "configuration": wrong})


def test_the_name_and_the_files_are_as_the_registry_asks() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]+", WHOLE["properties"]["name"]["const"])
    assert {"README.md", "schema.json", "examples"} <= {path.name for path in FOLDER.iterdir()}
    assert "## Current maintainers" in (FOLDER / "README.md").read_text()


def test_the_schema_has_every_setting_and_its_choices() -> None:
    known = SCHEMA["properties"]
    assert list(known) == [field.name for field in fields(Settings)]
    assert sorted(known["mode"]["enum"]) == sorted(MODES)
    assert known["context"]["enum"] == list(CONTEXTS)
    assert known["effort"]["maximum"] == MAX_EFFORT
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in text for name in known)


def test_the_example_is_what_the_codec_writes() -> None:
    example = json.loads((FOLDER / "examples" / "zarr.json").read_text())
    assert example == json.loads((SAMPLE / "zarr.json").read_text())
    assert example["codecs"] == [IsopressCodec(mode="abs", bound=BOUND).to_dict()]


def test_the_sample_is_read_by_the_version_that_wrote_it_and_refused_by_others() -> None:
    array = zarr.open_array(SAMPLE, mode="r")
    written = tuple((SAMPLE / "c" / "0" / "0" / "0").read_bytes()[4:6])
    if written == VERSION:
        assert np.abs(np.asarray(array[...]) - values()).max() <= BOUND
    else:
        with pytest.raises(UnsupportedVersionError, match=r"version \d+\.\d+"):
            array[...]
