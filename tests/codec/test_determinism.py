"""One payload, whatever computes it: matrix kernels, threads, precisions, batches, processes, flushed subnormals."""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import isopress
from isopress.codec.float_environment import subnormal_numbers
from isopress.codec.latent import context_model
from isopress.codec.latent.section import Latent, decode_fields
from isopress.codec.native import dispatch
from tests.fields import drifting_fields, spectral_field
from tests.latent_models import encode_fields, read_latents, small_model
from tests.strategies import Array

SCRIPT = """
import hashlib, sys
import numpy as np
import isopress
x = np.load(sys.argv[1])
payload = isopress.compress(x, mode="abs", bound=0.02)
print(hashlib.sha256(payload).hexdigest(), hashlib.sha256(isopress.decompress(payload).tobytes()).hexdigest())
"""


OTHERWISE = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Nehalem"}


def test_other_kernels_and_thread_counts_write_and_read_the_same_bytes(tmp_path):
    """All is different at once; `tests.determinism`, of which `.ci/run` makes the short form, takes each by itself."""
    x = (280 + 10 * spectral_field(120, 240, slope=2.2, seed=5)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    payload = isopress.compress(x, mode="abs", bound=0.02)
    expected = [
        hashlib.sha256(payload).hexdigest(),
        hashlib.sha256(np.ascontiguousarray(isopress.decompress(payload)).tobytes()).hexdigest(),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "x.npy")],
        env=os.environ | OTHERWISE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == expected, done.stderr


ROOT = Path(__file__).parents[2]
SHAPE = (3, 32, 48)
LATENT = Latent(0.25, 280.0, periodic=True)
MODEL = small_model()
DRIFT = 1e-12  # of the largest value, in products of transforms

# Decodes a section of another process, and codes the fields anew with the kernels and threads of its own.
OF_LATENTS = """
import sys
import numpy as np
from isopress.codec.latent.section import Latent, decode_fields
from tests.latent_models import encode_fields, read_latents, small_model

folder = sys.argv[1]
x, section = np.load(f"{folder}/x.npy"), open(f"{folder}/section", "rb").read()
model = small_model()
np.save(f"{folder}/latents.npy", read_latents(section, x.shape, model))
np.save(f"{folder}/values.npy", decode_fields(section, x.shape, model))
again, values = encode_fields(x, Latent(0.25, 280.0, True), model)
open(f"{folder}/again", "wb").write(again)
np.save(f"{folder}/again.npy", values)
"""


def fields() -> Array:
    return 280 + 5 * drifting_fields(*SHAPE)


THREADS_TOO = {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Nehalem", "ISOPRESS_THREADS": "2"}


def test_other_kernels_and_thread_counts_decode_the_same_latents(tmp_path: Path) -> None:
    """All is different at once; `tests.determinism`, of which `.ci/run` makes the short form, takes each by itself."""
    x = fields()
    section, values = encode_fields(x, LATENT, MODEL)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "section").write_bytes(section)
    done = subprocess.run(
        [sys.executable, "-c", OF_LATENTS, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | THREADS_TOO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "latents.npy"), read_latents(section, SHAPE, MODEL))
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), values, rtol=0, atol=DRIFT * np.abs(values).max())
    # It may have chosen other symbols; they are read here as they were written there.
    back = decode_fields((tmp_path / "again").read_bytes(), SHAPE, MODEL)
    np.testing.assert_allclose(back, np.load(tmp_path / "again.npy"), rtol=0, atol=DRIFT * np.abs(values).max())


def test_every_level_of_the_kernels_corrects_a_field_alike() -> None:
    x = fields()[0]
    section, values = encode_fields(x, LATENT, MODEL)
    for level in dispatch.levels():
        with dispatch.using(level):
            assert encode_fields(x, LATENT, MODEL)[0] == section, level
            np.testing.assert_array_equal(decode_fields(section, x.shape, MODEL), values)


# --- how the work is cut ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 100])
def test_points_taken_a_few_or_many_at_a_time_give_the_same_bytes(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = fields()[:2, :16, :24]
    section, values = encode_fields(x, LATENT, MODEL)
    monkeypatch.setattr(context_model, "BLOCK", block)
    assert encode_fields(x, LATENT, MODEL)[0] == section
    np.testing.assert_array_equal(decode_fields(section, x.shape, MODEL), values)


def test_threads_that_decode_side_by_side_do_not_disturb_each_other() -> None:
    sections = [encode_fields(fields()[:, : 24 + 4 * i], LATENT, MODEL)[0] for i in range(3)] * 3
    shapes = [(3, 24 + 4 * i, 48) for i in range(3)] * 3
    expected = [read_latents(section, shape, MODEL) for section, shape in zip(sections, shapes, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: read_latents(*case, MODEL), zip(sections, shapes, strict=True)))
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


MXCSR, FLUSH_TO_ZERO, SUBNORMAL_IS_ZERO = slice(28, 32), 0x8000, 0x40  # in glibc's fenv_t

on_x86_and_glibc = pytest.mark.skipif(
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


@on_x86_and_glibc
def test_the_environment_is_usual_inside_and_as_it_was_afterwards() -> None:
    small = np.array([5e-324])
    before = (small * 1.0)[0]  # zero if a library that other tests loaded has done so
    with flushing():
        assert (small * 1.0)[0] == 0
        with subnormal_numbers():
            assert (small * 1.0)[0] != 0
        assert (small * 1.0)[0] == 0
    assert (small * 1.0)[0] == before


@on_x86_and_glibc
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
