"""What every way into isopress must do; the tests of each adapter subclass `Contract`."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

MODES: dict[str, dict[str, Any]] = {
    "abs": {"mode": "abs", "bound": 0.01},
    "range": {"mode": "range", "bound": 1e-3},
    "pointwise": {"mode": "pointwise", "bound": 0.01},
    "pointwise-floor": {"mode": "pointwise", "bound": 0.01, "floor": 0.001},
    "lossless": {"mode": "lossless"},
    "latent-rmse": {"mode": "latent", "rmse": 0.3},
    "latent-ratio": {"mode": "latent", "ratio": 20},
}
FLOATS = ("<f4", ">f4", "<f8", ">f8")
OTHERS = ("<f2", ">f2", "i1", "<i2", ">i2", "<i4", ">i8", "u1", "<u2", ">u4", "<u8", "?")


def smooth(*shape: int) -> Array:
    """Return a smooth float64 field or stack of fields with a little noise, fixed by its shape."""
    rng = np.random.default_rng(shape)
    total = np.zeros(shape)
    for axis, length in enumerate(shape):
        wave = np.sin(np.arange(length) * (0.31 + 0.07 * axis) + axis)
        total = total + wave.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.asarray(280 + 10 * total + 0.05 * rng.standard_normal(shape))


def _special() -> Array:
    x = smooth(2, 7, 9)
    x[0, :3, :4] = np.nan
    x[0, 5] = np.inf
    x[1, 2, 2:5] = -np.inf, -0.0, 0.0
    x[1, 4, :2] = 1e-42, -1e-42  # subnormal in float32
    return x


def many_nans() -> Array:
    """Return a field with more kinds of NaN than a table of special values holds: some become exceptions."""
    x = smooth(40, 48).astype("<f4")
    x.reshape(-1).view("<u4")[:270] = 0x7FC00000 + np.arange(270)
    return x


def _tiny() -> Array:
    return smooth(5, 6) * np.float64(2.0) ** -140


ARRAYS: dict[str, Callable[[], Array]] = {
    "stack of fields": lambda: smooth(3, 9, 12),
    "one field": lambda: smooth(17, 10),
    "five axes": lambda: smooth(1, 2, 1, 5, 6),
    "leading singletons": lambda: smooth(1, 1, 8, 7),
    "one axis": lambda: smooth(40),
    "one column": lambda: smooth(11, 1),
    "one row": lambda: smooth(1, 11),
    "one value": lambda: smooth(1, 1),
    "no axis": lambda: smooth(),
    "no field": lambda: np.zeros((0, 4, 5)),
    "no column": lambda: np.zeros((3, 4, 0)),
    "constant": lambda: np.full((4, 5), 273.15),
    "zeros": lambda: np.zeros((4, 5)),
    "noise": lambda: np.random.default_rng(0).standard_normal((12, 11)),
    "special values": _special,
    "many kinds of NaN": many_nans,
    "only NaN": lambda: np.full((3, 4), np.nan),
    "subnormal": _tiny,
    "huge": lambda: smooth(5, 6) * 1e35,
    "lattice": lambda: np.round(smooth(9, 8) * 4) / 4,
}

# Targets are searched for, which takes its time; tests/codec/test_encode_target.py has strange arrays too.
TARGETS = ("latent-rmse", "latent-ratio")
WITH_TARGETS = ("stack of fields", "five axes", "one axis", "no field", "constant", "special values")
CASES = [(case, mode) for case in ARRAYS for mode in MODES if mode not in TARGETS or case in WITH_TARGETS]
# What a codec does with an array is the same behind every adapter: there, two modes for each array are enough.
BOUNDED = [mode for mode in MODES if mode not in TARGETS]
PAIRS = [(case, BOUNDED[(i + j) % len(BOUNDED)]) for i, case in enumerate(ARRAYS) for j in (0, 2)]
PAIRS += [(case, TARGETS[i % 2]) for i, case in enumerate(WITH_TARGETS)]
DTYPES = [(dtype, mode) for dtype in FLOATS for mode in MODES]


def misaligned(x: Array) -> Array:
    """Return a read-only copy of `x` that begins at an odd address, as arrays from network buffers do."""
    copy = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    assert not copy.flags.aligned or x.itemsize == 1
    return copy


def _mapped(x: Array) -> Array:
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, x.dtype, "w+", shape=x.shape)
        mapped[...] = x
        return mapped


def _read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


class Labelled(np.ndarray[Any, Any]):
    """A subclass of ndarray, as other libraries have."""


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "fortran": np.asfortranarray,
    "every second": lambda x: x[::2, 1::2, ::3],
    "backwards": lambda x: x[::-1, :, ::-1],
    "transposed": lambda x: x.transpose(1, 0, 2),
    "repeated": lambda x: np.broadcast_to(x[:1], x.shape),
    "field of a record": lambda x: np.rec.fromarrays([x[..., 0].astype("i1"), x[..., 0]], names="a,b").b,
    "misaligned": misaligned,
    "misaligned big-endian": lambda x: misaligned(x.astype(">f4")),
    "misaligned fortran": lambda x: misaligned(x).T,
    "read-only": _read_only,
    "memory map": _mapped,
    "subclass": lambda x: x.view(Labelled),
}


def bits(x: Array) -> bytes:
    """Return the values of `x` in C order as bytes, so that NaN and -0.0 compare too."""
    return x.astype(x.dtype.newbyteorder("<")).tobytes()


def assert_kept(
    x: Array,
    y: Array,
    *,
    mode: str,
    bound: float | Sequence[float] = 0.0,
    floor: float = 0.0,
    context: str = "auto",
    rmse: float | None = None,
    ratio: float | None = None,
) -> None:
    """Assert that `y` keeps what `compress(x, ...)` promises, in exact or wider arithmetic, without slack."""
    assert y.shape == x.shape
    if isinstance(bound, Sequence):
        for one, two, own in zip(x, y, bound, strict=True):
            assert_kept(one, two, mode=mode, bound=own)
        return
    assert y.dtype.newbyteorder("=") == x.dtype.newbyteorder("=")
    if mode == "lossless":
        assert bits(x) == bits(y)
        return
    exact = ~np.isfinite(x) | ((x == 0) & np.signbit(x))
    assert bits(x[exact]) == bits(y[exact])
    finite = x[np.isfinite(x)].astype(np.longdouble)
    x, y = x[~exact].astype(np.longdouble), y[~exact].astype(np.longdouble)
    if mode == "latent":
        if not x.size:
            return
        error = np.sqrt(np.mean((x - y) ** 2))
        # How near a ratio comes depends on what else a store holds; the error must at least be one of a coding.
        assert error <= (1.03 * rmse if rmse is not None else 2 * x.std())
        return
    tolerance = np.longdouble(bound) * np.ones_like(x)
    if mode == "range" and x.size:
        tolerance *= finite.max() - finite.min()
    if mode == "pointwise":
        tolerance = np.maximum(tolerance * abs(x), floor)
    assert (abs(x - y) <= tolerance).all()


class Contract:
    """Tests that hold for every way in; a subclass says how an array makes the round trip. `Whole` tries all modes."""

    keeps_byte_order = True

    def roundtrip(self, x: Array, **settings: Any) -> Array:
        """Return `x` after writing and reading it with a codec of these settings."""
        raise NotImplementedError

    @pytest.mark.parametrize(("case", "mode"), PAIRS)
    def test_every_mode_keeps_its_promise_on_every_array(self, case: str, mode: str) -> None:
        x = ARRAYS[case]().astype("f4")
        assert_kept(x, self.roundtrip(x, **MODES[mode]), **MODES[mode])

    @pytest.mark.parametrize(("dtype", "mode"), DTYPES[::3])
    def test_every_float_dtype_and_byte_order_comes_back(self, dtype: str, mode: str) -> None:
        x = ARRAYS["special values"]().astype(dtype)
        y = self.roundtrip(x, **MODES[mode])
        assert_kept(x, y, **MODES[mode])
        assert y.dtype == x.dtype or not self.keeps_byte_order

    @pytest.mark.parametrize("dtype", OTHERS)
    def test_lossless_restores_other_dtypes_bit_for_bit(self, dtype: str) -> None:
        x = (smooth(2, 6, 7) - 270).astype(dtype)
        y = self.roundtrip(x, mode="lossless")
        assert_kept(x, y, mode="lossless")
        assert y.dtype == x.dtype or not self.keeps_byte_order

    @pytest.mark.parametrize("mode", MODES)
    def test_misaligned_big_endian_arrays_are_taken_in_every_mode(self, mode: str) -> None:
        self.check_layout("misaligned big-endian", mode)

    @pytest.mark.parametrize("mode", ["abs", "lossless"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_memory_layout_gives_the_same_values(self, layout: str, mode: str) -> None:
        self.check_layout(layout, mode)

    def check_layout(self, layout: str, mode: str) -> None:
        """Assert that an array of this layout comes back, and is as it was."""
        x = LAYOUTS[layout](smooth(4, 10, 12).astype("f4"))
        before = bits(x)
        assert_kept(np.asarray(x), self.roundtrip(x, **MODES[mode]), **MODES[mode])
        assert bits(x) == before

    @pytest.mark.parametrize("dtype", ["<f8", "<i4", ">i2"])
    def test_misaligned_arrays_of_other_dtypes_are_taken(self, dtype: str) -> None:
        x = misaligned((smooth(2, 6, 7) - 270).astype(dtype))
        assert_kept(x, self.roundtrip(x, mode="lossless"), mode="lossless")


class Whole(Contract):
    """The same for the way in that all others lead to: every array and every dtype in every mode."""

    @pytest.mark.parametrize(("case", "mode"), CASES)
    def test_every_mode_keeps_its_promise_on_every_array(self, case: str, mode: str) -> None:
        super().test_every_mode_keeps_its_promise_on_every_array(case, mode)

    @pytest.mark.parametrize(("dtype", "mode"), DTYPES)
    def test_every_float_dtype_and_byte_order_comes_back(self, dtype: str, mode: str) -> None:
        super().test_every_float_dtype_and_byte_order_comes_back(dtype, mode)
