"""Other libraries may let a thread take subnormal numbers for zero; payloads and values are the same."""

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import isopress
from isopress.codec.float_environment import subnormal_numbers

MXCSR, FLUSH_TO_ZERO, SUBNORMAL_IS_ZERO = slice(28, 32), 0x8000, 0x40  # in glibc's fenv_t

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="sets flush-to-zero in the way of x86 and glibc"
)


@contextmanager
def flushing() -> Iterator[None]:
    """Do to this thread what loading a library linked with -ffast-math does."""
    library, before = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    library.fegetenv(before)
    after = ctypes.create_string_buffer(before.raw, 256)
    mxcsr = int.from_bytes(before.raw[MXCSR], "little") | FLUSH_TO_ZERO | SUBNORMAL_IS_ZERO
    after[MXCSR] = mxcsr.to_bytes(4, "little")
    library.fesetenv(after)
    try:
        yield
    finally:
        library.fesetenv(before)


def test_the_environment_is_usual_inside_and_as_it_was_afterwards() -> None:
    small = np.array([5e-324])
    before = (small * 1.0)[0]  # zero if a library that other tests loaded has done so
    with flushing():
        assert (small * 1.0)[0] == 0
        with subnormal_numbers():
            assert (small * 1.0)[0] != 0
        assert (small * 1.0)[0] == 0
    assert (small * 1.0)[0] == before


@pytest.mark.parametrize(
    ("scale", "dtype", "settings"),
    [
        (1e-42, "f4", {"mode": "pointwise", "bound": 0.01}),
        (1e-42, "f4", {"mode": "abs", "bound": 1e-43}),
        (1e-39, "f4", {"mode": "range", "bound": 1e-3}),
        (1e-310, "f8", {"mode": "pointwise", "bound": 0.01}),
        (1e-288, "f8", {"mode": "abs", "bound": 1e-290}),  # a lattice whose power of two is looked for
        (0.1, "f4", {"mode": "abs", "bound": 0.01}),
    ],
)
def test_payloads_and_values_do_not_depend_on_it(scale: float, dtype: str, settings: dict) -> None:
    fields = (np.random.default_rng(1).integers(1, 1000, (2, 24, 24)) * scale).astype(dtype)
    payload = isopress.compress(fields, **settings)
    expected = isopress.decompress(payload)
    with flushing():
        found = isopress.compress(fields, **settings)
        values = isopress.decompress(payload)
    assert found == payload
    assert values.tobytes() == expected.tobytes()
