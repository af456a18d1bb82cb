"""compress, decompress, inspect: the contract, and what the header says of an array."""

import json
from typing import Any

import numpy as np
import pytest
import zarr

import isopress
from isopress import ArgumentError, IsopressCodec
from isopress.format.payload import VERSION
from tests.contract import ARRAYS, MODES, Array, Whole, assert_kept, bits, smooth
from tests.fields import blocky
from tests.make_golden import SMALL


class TestApi(Whole):
    """compress and decompress."""

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        y: Array = isopress.decompress(isopress.compress(x, **settings))
        return y


@pytest.mark.parametrize("mode", MODES)
def test_inspect_tells_settings_errors_and_sizes_without_the_sections(mode: str) -> None:
    x = smooth(2, 9, 10).astype(">f4")
    payload = isopress.compress(x, **MODES[mode])
    info = isopress.inspect(payload)
    y = isopress.decompress(payload)
    assert (info.dtype, info.shape, info.order, info.version) == (x.dtype, x.shape, "C", VERSION)
    asked = {"mode": info.mode, "bound": info.bound, "floor": info.floor, "ratio": info.ratio, "rmse": info.target_rmse}
    assert {name: value for name, value in asked.items() if value is not None} == MODES[mode]
    assert (info.nbytes, info.original_nbytes) == (len(payload), x.nbytes)
    errors = x.astype("f8") - y.astype("f8")
    assert info.max_error == abs(errors).max()
    assert info.rmse == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-6)
    header = payload[: info.nbytes - sum(length for _, length in info.sections)]
    assert isopress.inspect(header) == info


def test_the_resolved_bound_of_a_range_is_in_the_unit_of_the_data() -> None:
    x = np.array([[1.0, 3.0], [np.nan, 2.0]], "f4")
    assert isopress.inspect(isopress.compress(x, mode="range", bound=0.25)).resolved_bound == 0.5


@pytest.mark.parametrize("mode", MODES)
def test_errors_stay_finite_for_the_largest_floats(mode: str) -> None:
    x = smooth(6, 7) * 3e305
    x[0, 0] = -np.finfo("f8").max
    payload = isopress.compress(x, **MODES[mode])
    assert np.isfinite(isopress.inspect(payload).rmse)
    assert_kept(x, isopress.decompress(payload), **MODES[mode])


def test_signalling_nan_keeps_its_bits_in_either_byte_order() -> None:
    x = np.array([0x7FF0000000000001, 0xFFF8000000000ABC, 0x3FF0000000000000], "<u8").view("<f8")
    for dtype in ("<f8", ">f8"):
        y = x if dtype == "<f8" else x.view("u8").byteswap().view(">f8")
        for settings in MODES.values():
            assert isopress.decompress(isopress.compress(y, **settings)).tobytes() == y.tobytes()


@pytest.mark.parametrize("model", ["default", SMALL])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_signalling_nan_keeps_its_bits_beside_latents(dtype: str, model: str) -> None:
    x = blocky(shape=(12, 14)).astype(dtype)
    x.view(f"u{x.itemsize}")[..., 0, :3] = 0x7F800001 if dtype == "f4" else 0x7FF0000000000001
    y = isopress.decompress(isopress.compress(x, mode="latent", rmse=0.5, model=model))
    assert bits(y[..., 0, :3]) == bits(x[..., 0, :3])


def test_compressing_does_not_alter_the_array() -> None:
    x = ARRAYS["special values"]()
    before = bits(x)
    for settings in MODES.values():
        isopress.compress(x, **settings)
    assert bits(x) == before


def test_lists_and_scalars_are_arrays_too() -> None:
    assert isopress.decompress(isopress.compress([1.0, 2.0], mode="lossless")).tolist() == [1.0, 2.0]
    assert isopress.decompress(isopress.compress(1.5, mode="lossless")).shape == ()


def test_a_constant_field_costs_a_header() -> None:
    x = np.full((721, 1440), 273.15, "f4")
    assert all(len(isopress.compress(x, **settings)) <= 100 for settings in MODES.values())


def test_noise_costs_at_most_64_bytes_more_than_its_raw_bytes() -> None:
    x = np.random.default_rng(0).integers(0, 2**32, (16, 17), "u4").view("f4")
    for settings in MODES.values():
        assert len(isopress.compress(x, **settings)) <= x.nbytes + 64


@pytest.mark.parametrize("buf", ["text", 3, None, [1, 2], np.zeros(8, "u1")[::2]])
def test_what_is_no_buffer_of_bytes_is_refused(buf: Any) -> None:
    with pytest.raises(ArgumentError, match="contiguous"):
        isopress.decompress(buf)


def test_an_array_larger_than_a_payload_may_hold_is_refused_before_it_is_touched() -> None:
    x = np.broadcast_to(np.float32(0), (2**20, 2**11))
    with pytest.raises(ArgumentError, match="split it into chunks"):
        isopress.compress(x, mode="lossless")


@pytest.mark.parametrize(
    "settings",
    [
        {"bound": 0.1, "context": np.zeros(3)},
        {"bound": 0.1, "context": ["auto"]},
        {"bound": 0.1, "mode": np.zeros(2)},
        {"bound": 0.1, "mode": ["abs"]},
        {"bound": 0.1, "exact": "x"},
        {"bound": 0.1, "exact": [10**400]},
        {"bound": 0.1, "exact": [[1, 2]]},
        {"bound": 0.1, "exact": 5},
        {"bound": 10**400},
        {"bound": np.zeros((2, 2))},
        {"bound": 0.1, "model": np.zeros(2)},
        {"mode": "latent", "ratio": np.zeros(2)},
        {"mode": "latent", "rmse": 1.0, "effort": np.zeros(2)},
    ],
    ids=str,
)
def test_settings_of_any_kind_are_refused_as_arguments(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        isopress.compress(smooth(2, 5, 6), **settings)


# --- lists of bounds --------------------------------------------------------------------------------------------------


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
