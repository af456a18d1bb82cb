"""CRA5's files as sources: the command line, xarray's engine, and one decode for all fields of a file."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from isopress.codec.errors import ArgumentError, PayloadError
from isopress.codec.models.registry import describe
from isopress.codec.vaeformer.cra5 import Cra5Model
from isopress.codec.vaeformer.weights import load_cra5
from isopress.format.decode_cache import CACHE
from tests.cra5_files import SHAPE, save_checkpoint, smooth
from tests.model_folders import run


@pytest.fixture
def model(user: Path, tmp_path: Path) -> Cra5Model:
    """The small model, imported by the command line."""
    weights, config, statistics = save_checkpoint(tmp_path / "published")
    result = run("models", "import", weights, "--config", config, "--statistics", statistics)
    assert result.exit_code == 0, result.output
    assert "made of a file with sha256" in result.output
    assert run("models", "import", weights, "--config", config, "--statistics", statistics).exit_code == 2
    return load_cra5(describe(user / "cra5_268v_300k.safetensors").sha256)


@pytest.fixture
def files(model: Cra5Model, tmp_path: Path) -> list[Path]:
    folder = tmp_path / "hours"
    folder.mkdir()
    paths = [folder / f"2024-06-01T0{hour}:00:00.bin" for hour in range(3)]
    for hour, path in enumerate(paths):
        path.write_bytes(model.encode(smooth(hour)))
    return paths


def test_files_become_a_store_with_times_and_levels(model: Cra5Model, files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    result = run("compress", *files, out, "--error", "0.01")
    assert result.exit_code == 0, result.output
    with xr.open_zarr(out) as dataset:
        assert list(dataset.level.values) == [1000, 500]
        assert str(dataset.time.values[2])[:13] == "2024-06-01T02"
        assert dataset.t.shape == (3, 2, *SHAPE)
        assert dataset.t2m.units == "K"
        for hour in range(3):
            decoded = model.decode(files[hour].read_bytes())
            assert abs(dataset.t[hour, 1].values - decoded.channel(1)).max() <= 0.01
            assert abs(dataset.t2m[hour].values - decoded.channel(2)).max() <= 0.01
        assert dataset.latitude.values[[0, -1]].tolist() == [90, -90]
    assert run("info", files[0].parent).exit_code in (0, 2)


def test_all_fields_of_a_file_cost_one_decode(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[bytes]()
    decode = Cra5Model.decode

    def counted(self: Cra5Model, data: bytes) -> object:
        calls.append(data)
        return decode(self, data)

    monkeypatch.setattr(Cra5Model, "decode", counted)
    CACHE.clear()
    with xr.open_dataset(files[0], engine="cra5") as dataset:
        assert not calls
        field = dataset.t.sel(level=500, time="2024-06-01T00").values
        everything = dataset.load()
        np.testing.assert_array_equal(everything.t.values[0, 1], field)
        assert everything.t2m.shape == (1, *SHAPE)
    with xr.open_dataset(files[0]) as dataset:  # found by its name
        part = dataset.t.isel(time=0, latitude=[3, 1], longitude=slice(2, 20, 3))
        np.testing.assert_array_equal(part.values, everything.t.values[0][:, [3, 1], 2:20:3])
        assert dataset.t2m[0, 4, 5].item() == everything.t2m.values[0, 4, 5]
    assert len(calls) == 1


def test_what_is_no_file_of_cra5_is_said(user: Path, files: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "2024-06-01T00:00:00.bin"
    data = bytearray(files[0].read_bytes())
    data[30] ^= 255
    damaged.write_bytes(data)
    with xr.open_dataset(damaged, engine="cra5") as dataset, pytest.raises(PayloadError, match=r"00\.bin: the latents"):
        dataset.t2m.load()
    result = run("compress", damaged, tmp_path / "out.zarr")
    assert result.exit_code == 2
    assert "float16 attention" in result.output
    with pytest.raises(ArgumentError, match="no time"):
        xr.open_dataset(tmp_path / "2024-13-01T00:00:00.bin", engine="cra5")
    next(user.glob("*.safetensors")).unlink()
    with pytest.raises(ArgumentError, match="isopress models import"):
        xr.open_dataset(files[0], engine="cra5")
