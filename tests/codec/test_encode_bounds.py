"""Chunks: bounds of several variables, each kept; arrays and bounds at the edge of what there is."""

from typing import Any

import numpy as np
import pytest

from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.encoded import Method, Section
from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, exceeds
from isopress.codec.values.outliers import bits_of
from tests.fields import decode_chunk, drifting_fields
from tests.strategies import Array


def variables(*kinds: str, dtype: str = "f4") -> Array:
    """Return variables (n, 3, 12, 12) with something in common."""
    base = drifting_fields(3, 12, 12)
    rng = np.random.default_rng(0)
    made = {
        "smooth": base,
        "scaled": 500 * base + 1e5,
        "tiny": 1e-5 * base,
        "lattice": np.rint(base * 20) / 20,
        "constant": np.full(base.shape, 3.5),
        "noise": rng.normal(size=base.shape),
        "masked": np.where(rng.random(base.shape) < 0.3, np.nan, base),
        "missing": np.full(base.shape, np.nan),
        "zeros": np.where(base > 0, base, -0.0),
    }
    return np.stack([made[kind] for kind in kinds]).astype(dtype)


JOINT = [
    (("smooth", "scaled"), (0.01, 5.0)),
    (("smooth", "scaled", "tiny"), (0.05, 20.0, 1e-7)),
    (("smooth", "lattice"), (0.01, 0.01)),
    (("lattice", "lattice"), (0.01, 0.001)),
    (("masked", "missing", "zeros"), (0.01, 0.1, 0.05)),
    (("noise", "smooth"), (1e-9, 0.1)),  # the first is finer than its last bit
    (("constant", "smooth"), (0.1, 0.1)),
    (("constant", "constant"), (0.1, 0.2)),
    (("missing", "missing"), (0.1, 0.2)),
    (("smooth",), (0.02,)),
]


@pytest.mark.parametrize(("context", "dtype"), [("auto", "f4"), ("field", "f4"), ("block", "f4"), ("auto", "f8")])
@pytest.mark.parametrize(("kinds", "sizes"), JOINT, ids=str)
def test_every_variable_keeps_its_own_bound(
    kinds: tuple[str, ...], sizes: tuple[float, ...], context: Any, dtype: str
) -> None:
    x = variables(*kinds, dtype=dtype)
    bound = tuple(Bound("abs", size) for size in sizes)
    encoded = encode_chunk(x, bound, context=context)
    y = decode_chunk(encoded, x.dtype, x.shape)
    exact = ~np.isfinite(x) | ((x == 0) & np.signbit(x))
    np.testing.assert_array_equal(bits_of(x)[exact], bits_of(y)[exact])
    with np.errstate(invalid="ignore"):
        error = np.where(exact, 0, np.abs(x.astype("f8") - y))
    for own, size in zip(error, sizes, strict=True):
        assert own.max() <= size
    relative = error / np.array(sizes)[:, None, None, None]
    assert encoded.resolved_bound == 1
    assert encoded.max_error == relative.max() <= 1
    finite = max(1, int(np.isfinite(x).sum()))
    assert encoded.rmse == pytest.approx(np.sqrt((relative**2).sum() / finite), rel=1e-6)
    assert np.frombuffer(dict(encoded.sections)[Section.BOUNDS], "<f8").tolist() == list(sizes)
    assert encoded.method != Method.BLOCK or context != "field"


def test_variables_with_something_in_common_are_smaller_together() -> None:
    x = variables("smooth", "scaled")
    bound = (Bound("abs", 0.01), Bound("abs", 5.0))
    together = encode_chunk(x, bound)
    assert together.method == Method.BLOCK
    assert together.nbytes < sum(encode_chunk(part, b).nbytes for part, b in zip(x, bound, strict=True))


def test_variables_that_lie_on_lattices_are_restored_exactly() -> None:
    x = variables("lattice", "lattice")
    encoded = encode_chunk(x, (Bound("abs", 0.01), Bound("abs", 0.001)))
    assert encoded.method != Method.LOSSLESS
    assert (encoded.max_error, encoded.rmse) == (0, 0)


@pytest.mark.parametrize(
    ("shape", "bound"),
    [
        ((3, 4, 5, 6), (Bound("abs", 0.1),) * 2),
        ((2, 4, 5), (Bound("abs", 0.1), Bound("range", 0.1))),
        ((2, 4, 5), (Bound("pointwise", 0.1), Bound("pointwise", 0.1))),
        ((2, 4), (Bound("abs", 0.1),) * 2),
    ],
)
def test_bounds_that_do_not_go_with_the_array_are_refused(shape: tuple[int, ...], bound: tuple[Bound, ...]) -> None:
    with pytest.raises(ArgumentError, match=r"bounds need chunks of shape|several bounds are of mode"):
        encode_chunk(np.zeros(shape, "f4"), bound)


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
