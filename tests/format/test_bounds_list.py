"""Lists of bounds: one for each entry of the first axis."""

import json
from typing import Any

import numpy as np
import pytest
import zarr

import isopress
from isopress import ArgumentError, IsopressCodec
from tests.contract import smooth


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


def test_a_codec_takes_one_bound_for_each_entry_of_the_first_axis() -> None:
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
