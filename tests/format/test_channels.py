"""A VAEformer's weights in stores: channels are matched by name, and what does not fit is one clear error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import isopress.xarray
from isopress.cli.main import main
from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError, ModelNotFoundError
from isopress.format.payload import inspect
from isopress.format.store.write import write
from tests.datasets import errors
from tests.fields import blocky
from tests.make_golden import ALONE, SMALL

LABELS = ["t850", "t500", "u10"]
DIMS = ("time", "channel", "lat", "lon")


def states(labels: Any = LABELS, name: str = "state") -> xr.Dataset:
    """Two hours of the three channels, and a variable that is none of them."""
    x = blocky(2, shape=(24, 32))
    data = {name: (DIMS, x), "t2m": (("time", "lat", "lon"), x[:, 0])}
    return xr.Dataset(data, coords={"channel": labels, "time": np.arange(2)})


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("limit", ["rmse:0.4", "0.5"])
def test_variables_with_the_channels_of_the_weights_are_coded_with_them(
    tmp_path: Path, limit: str, zarr_format: Any
) -> None:
    states().to_netcdf(tmp_path / "in.nc")
    wanted = errors(f"state={limit}", "t2m=0.5")
    write(str(tmp_path / "in.nc"), tmp_path / "out.zarr", errors=wanted, model=SMALL, zarr_format=zarr_format)
    payloads = [p.read_bytes() for p in (tmp_path / "out.zarr/state").rglob("[0-9]*") if p.is_file()]
    method = Method.VAEFORMER if limit.startswith("rmse") else Method.ON_VAEFORMER
    assert [inspect(payload).method for payload in payloads] == [method] * 2
    with xr.open_zarr(tmp_path / "out.zarr", consolidated=False) as out:
        missed = out.state.values - states().state.values
        assert out.state.encoding["chunks"] == (1, 3, 24, 32)
        assert list(out.channel.values) == LABELS
        assert float(abs(out.t2m - states().t2m).max()) <= 0.5
    assert abs(missed).max() <= 0.5 if method == Method.ON_VAEFORMER else np.sqrt((missed**2).mean()) <= 0.42


def test_weights_of_any_field_code_every_variable_field_by_field_in_its_unit(tmp_path: Path) -> None:
    states().assign(mm=states().t2m * 1e-6).to_netcdf(tmp_path / "in.nc")
    wanted = errors("state=rmse:3", "t2m=rmse:3", "mm=rmse:3e-6")
    write(str(tmp_path / "in.nc"), tmp_path / "out.zarr", errors=wanted, model=ALONE)
    with xr.open_zarr(tmp_path / "out.zarr", consolidated=False) as out:
        assert [out[name].encoding["chunks"] for name in ("state", "mm")] == [(1, 1, 24, 32), (1, 24, 32)]
        for name, unit in (("t2m", 1), ("mm", 1e-6)):
            assert float(np.sqrt(((out[name] - unit * states().t2m) ** 2).mean())) <= 3.1 * unit
    payloads = [path.read_bytes() for path in (tmp_path / "out.zarr/mm").rglob("[0-9]*") if path.is_file()]
    assert Method.VAEFORMER in [inspect(payload).method for payload in payloads]


def test_the_command_and_xarray_take_weights_too(tmp_path: Path) -> None:
    states().to_netcdf(tmp_path / "in.nc")
    options = ["--error", "state=rmse:0.4", "--error", "t2m=0.5", "--model", SMALL]
    done = CliRunner().invoke(main, ["compress", str(tmp_path / "in.nc"), str(tmp_path / "out.zarr"), *options])
    assert done.exit_code == 0, done.output
    encoding = isopress.encoding(states(), {"state": "rmse:0.4", "t2m": 0.5}, model=SMALL)
    assert encoding["state"]["serializer"].to_dict()["configuration"]["model"] == SMALL
    assert "model" not in encoding["t2m"]["serializer"].to_dict()["configuration"]


@pytest.mark.parametrize(
    ("labels", "name", "reason"),
    [
        (["t850", "t500", "v10"], "state", "along channel it has t850, t500, v10"),
        ([850.0, 500.0, 300.0], "t", "along channel it has t850, t500, t300"),
        (None, "state", "no coordinate that names channels"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(labels: Any, name: str, reason: str) -> None:
    dataset = states(labels or LABELS, name)
    dataset = dataset if labels else dataset.drop_vars("channel")
    with pytest.raises(ArgumentError, match=reason) as error:
        isopress.encoding(dataset, 0.5, model=SMALL)
    assert "t850, t500, u10 of the weights" in str(error.value)
    assert "t2m: along time it has" in str(error.value)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("limit", ["rmse:0.4", "0.5"])
def test_channels_in_another_order_are_found_by_name_and_cost_the_same(
    tmp_path: Path, limit: str, zarr_format: Any
) -> None:
    names, places = ["u10", "t850", "t500"], [2, 0, 1]
    for name, dataset in (("usual", states()), ("other", states().isel(channel=places))):
        dataset[["state"]].to_netcdf(tmp_path / f"{name}.nc")
        out = tmp_path / f"{name}.zarr"
        write(str(tmp_path / f"{name}.nc"), out, errors=errors(limit), model=SMALL, zarr_format=zarr_format)
    with xr.open_zarr(tmp_path / "usual.zarr") as usual, xr.open_zarr(tmp_path / "other.zarr") as other:
        assert list(other.channel.values) == names
        if limit == "rmse:0.4":
            np.testing.assert_array_equal(other.state, usual.state[:, places])
        else:
            assert float(abs(other.state - states().state.isel(channel=places)).max()) <= 0.5
    payloads = [p.read_bytes() for p in sorted((tmp_path / "other.zarr/state").rglob("[0-9]*")) if p.is_file()]
    assert {inspect(payload).method for payload in payloads} <= {Method.VAEFORMER, Method.ON_VAEFORMER}
    codec = str((tmp_path / "other.zarr/state" / (".zarray" if zarr_format == 2 else "zarr.json")).read_text())
    assert '"channels"' in codec


def test_chunks_without_all_channels_and_unknown_weights_are_refused() -> None:
    with pytest.raises(ArgumentError, match="3 channels"):
        isopress.encoding(states(), 0.5, model=SMALL, chunks={"channel": 1})
    with pytest.raises(ModelNotFoundError):
        isopress.encoding(states(), 0.5, model="nobody's")
