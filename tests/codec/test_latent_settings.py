"""Targets: settings, options, reports and the checks of mode latent that need no weights."""

import json
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

import isopress
from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Target
from isopress.format import Isopress, IsopressCodec
from isopress.format.store.distortion import measure

RATIO_300 = {"mode": "latent", "ratio": 300.0}
RMSE_HALF = {"mode": "latent", "rmse": 0.5, "effort": 2}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "latent"}, "takes a ratio or an rmse, one of the two; got neither"),
    ({"mode": "latent", "ratio": 300, "rmse": 0.5}, "got ratio=300 and rmse=0.5"),
    ({"mode": "latent", "ratio": 1}, "ratio must be a finite number > 1.*got 1$"),
    ({"mode": "latent", "ratio": -3.0}, "got -3.0"),
    ({"mode": "latent", "ratio": float("inf")}, "ratio must be a finite"),
    ({"mode": "latent", "ratio": "300"}, "got '300'"),
    ({"mode": "latent", "ratio": True}, "got True"),
    ({"mode": "latent", "rmse": 0}, "rmse must be a finite number > 0, in the unit of the data, got 0"),
    ({"mode": "latent", "rmse": float("nan")}, "got nan"),
    ({"mode": "latent", "rmse": [0.1, 0.2]}, "rmse must be"),
    ({"mode": "latent", "ratio": 300, "bound": 0.1}, "bound=0.1 belongs to the bounded modes.*leave out bound"),
    ({"mode": "latent", "ratio": 300, "bound": np.array([1, 2])}, "belongs to the bounded modes"),
    ({"mode": "latent", "ratio": 300, "floor": 0.1}, "floor=0.1 belongs"),
    ({"mode": "latent", "ratio": 300, "context": "block"}, "context='block' belongs"),
    ({"mode": "latent", "ratio": 300, "effort": -1}, "effort is an integer from 0 to 4, got -1"),
    ({"mode": "latent", "ratio": 300, "effort": 5}, "effort is an integer from 0 to 4, got 5"),
    ({"mode": "latent", "ratio": 300, "effort": 0.5}, "effort is an integer from 0 to 4, got 0.5"),
    ({"mode": "latent", "ratio": 300, "effort": True}, "effort is an integer from 0 to 4, got True"),
    ({"mode": "latent", "ratio": 300, "model": ""}, "model is a name"),
    ({"bound": 0.1, "ratio": 300}, "ratio=300 belongs to mode 'latent', not 'abs': leave it out, or set mode='latent'"),
    ({"ratio": 300}, "ratio=300 belongs to mode 'latent'"),
    ({"mode": "lossless", "rmse": 0.5}, "rmse=0.5 belongs to mode 'latent', not 'lossless'"),
    ({"bound": 0.1, "effort": 1}, "effort=1 belongs to mode 'latent'"),
    ({"mode": "neural", "ratio": 3}, "mode 'neural' is unknown; allowed are abs, range, pointwise, lossless, latent"),
]


@pytest.mark.parametrize(("settings", "reason"), BAD)
def test_a_target_that_is_none_is_refused_by_every_way_in(settings: dict[str, Any], reason: str) -> None:
    for way in (Isopress, IsopressCodec, lambda **kw: isopress.compress(np.zeros((3, 4), "f4"), **kw)):
        with pytest.raises(ArgumentError, match=reason):
            way(**settings)


@pytest.mark.parametrize("settings", [RATIO_300, RMSE_HALF])
def test_both_codecs_keep_targets_in_their_configuration(settings: dict[str, Any]) -> None:
    v2, v3 = Isopress(**settings), IsopressCodec(**settings)
    assert numcodecs.get_codec(json.loads(json.dumps(v2.get_config()))) == v2
    assert v2.get_config() == {"id": "isopress", **settings}
    assert IsopressCodec.from_dict(json.loads(json.dumps(v3.to_dict()))) == v3
    assert v3.to_dict() == {"name": "isopress", "configuration": settings}
    assert v2.limit == v3.limit == Target(settings.get("ratio"), settings.get("rmse"))


def test_numpy_numbers_become_plain_ones() -> None:
    codec = Isopress(mode="latent", ratio=np.float32(300), effort=np.int64(1))
    assert json.loads(json.dumps(codec.get_config())) == {"id": "isopress", **RATIO_300, "effort": 1}


@pytest.mark.parametrize("dtype", ["i2", "f2", "?", "u8"])
def test_only_single_and_double_floats_have_latents(dtype: str) -> None:
    x = np.zeros((4, 5), dtype)
    with pytest.raises(ArgumentError, match=f"mode 'latent' codes float32 and float64, not {np.dtype(dtype)}: use"):
        isopress.compress(x, mode="latent", ratio=10)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        Isopress(**RATIO_300).encode(x)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        zarr.create_array({}, shape=x.shape, dtype=x.dtype, serializer=IsopressCodec(**RATIO_300), compressors=None)


def test_a_chunk_is_on_target_within_three_per_cent() -> None:
    error, ratio = Target(rmse=0.5), Target(ratio=300)
    assert [error.allows(rmse) for rmse in (0.0, 0.5, 0.514, 0.516, np.nan)] == [True, True, True, False, False]
    assert ratio.allows(1e9)


# --- what is told of decoded values -----------------------------------------------------------------------------------


def test_errors_are_measured_against_a_target() -> None:
    x = np.zeros((10, 10), "f4")
    x[0, 0] = np.nan
    off = x + np.float32(0.5)
    assert measure(x, off, Target(rmse=0.5)).violations == 0
    assert measure(x, off, Target(rmse=0.48)).violations == 1
    assert measure(x, off, Target(ratio=9)).violations == 0
    assert measure(x, off, Target(ratio=9)).rmse == 0.5
    for target in (Target(rmse=1e9), Target(ratio=9)):
        filled, lost, infinite = off.copy(), off.copy(), off.copy()
        filled[0, 0], lost[1, 1], infinite[1, 1:4] = 0, np.nan, np.inf
        assert measure(x, filled, target).violations == 1
        assert measure(x, lost, target).violations >= 1
        assert measure(x, infinite, target).violations >= 3
    only_nan = np.full((2, 2), np.nan, "f4")
    assert measure(only_nan, only_nan, Target(rmse=0.1)).violations == 0
