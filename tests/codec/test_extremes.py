"""Arrays and bounds at the edge of what there is: memory, the largest numbers, signalling NaN."""

import numpy as np
import pytest

from isopress.codec.encode import decode_chunk, encode_chunk
from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, exceeds
from isopress.codec.values.outliers import bits_of
from tests.fields import drifting_fields

BOUNDS = [Bound("abs", 0.1), Bound("lossless"), Bound("pointwise", 0.01), Bound("range", 0.01)]


@pytest.mark.parametrize(
    "bound",
    [
        Bound("pointwise", 0.01, 1e308),
        Bound("pointwise", 0.9, 1e308),
        Bound("abs", 1.79e308),
        Bound("abs", 1e300),
        Bound("range", 1e300),
        (Bound("abs", 1.7e308), Bound("abs", 1.79e308), Bound("abs", 1e300)),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1.0, 4e307, 0.0])
def test_bounds_near_the_largest_number_are_kept(bound, size):
    x = (np.random.default_rng(0).normal(size=(3, 20, 30)) * size).clip(-1.7e308, 1.7e308)
    x += np.arange(3)[:, None, None]
    y = decode_chunk(encode_chunk(x, bound), x.dtype, x.shape)
    for i, b in enumerate(bound if isinstance(bound, tuple) else (bound,) * 3):
        assert not exceeds(x[i], y[i], b.tolerance(x if b.mode == "range" else x[i])).any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "bound", [Bound("abs", 0.1), Bound("lossless"), Bound("pointwise", 0.01), Bound("range", 0.01)], ids=str
)
def test_signalling_nans_come_back_without_a_warning(dtype, bound):
    x = drifting_fields(3, 20, 30).astype(dtype)
    bits = bits_of(x)
    bits[1, 3, 4:9] = 0x7FA00000 if dtype == "f4" else 0x7FF4000000000000
    y = decode_chunk(encode_chunk(x, bound), x.dtype, x.shape)
    assert (bits_of(y)[1, 3, 4:9] == bits[1, 3, 4:9]).all()


def _varied_memory(x):
    """Return the values of `x` in every kind of memory."""
    swapped = x.dtype.newbyteorder()
    frozen = x.copy()
    frozen.flags.writeable = False
    record = np.zeros(x.shape, [("n", "u1"), ("x", x.dtype)]).view(np.recarray)
    record["x"] = x
    return {
        "misaligned": np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
        "byte-swapped": x.astype(swapped),
        "misaligned and byte-swapped": np.frombuffer(b"\0" + x.astype(swapped).tobytes(), swapped, offset=1).reshape(
            x.shape
        ),
        "strided": x.repeat(2, -1)[..., ::2],
        "reversed": x[::-1, :, ::-1].copy()[::-1, :, ::-1],
        "Fortran": np.asfortranarray(x),
        "read-only": frozen,
        "field of records": record.x,
        "subclass": x.view(type("Special", (np.ndarray,), {})),
    }


@pytest.mark.parametrize(
    "bound", [Bound("abs", 0.1), Bound("pointwise", 0.01), Bound("range", 0.01), Bound("lossless")], ids=str
)
def test_the_memory_of_an_array_makes_no_difference(bound):
    x = drifting_fields(4, 12, 16).astype("f4")
    expected = encode_chunk(x, bound, context="field")
    for name, array in _varied_memory(x).items():
        assert encode_chunk(array, bound, context="field") == expected, name


def test_records_are_refused():
    with pytest.raises(ArgumentError, match="dtype"):
        encode_chunk(np.zeros((3, 4), [("x", "f4")]), Bound("lossless"))
