"""Latents are integers: what one machine, thread count, precision or batch size coded, every other decodes alike."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from isopress.codec import native
from isopress.codec.latent import context_model
from isopress.codec.latent.section import Latent, decode_fields
from tests.fields import drifting_fields
from tests.latent_models import encode_fields, read_latents, small_model
from tests.strategies import Array

ROOT = Path(__file__).parents[2]
SHAPE = (3, 32, 48)
LATENT = Latent(0.25, 280.0, periodic=True)
MODEL = small_model()
DRIFT = 1e-12  # of the largest value, in products of transforms

# Decodes a section of another process, and codes the fields anew with the kernels and threads of its own.
SCRIPT = """
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


OTHERWISE = {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Nehalem", "ISOPRESS_THREADS": "2"}


def test_other_kernels_and_thread_counts_decode_the_same_latents(tmp_path: Path) -> None:
    """All is different at once; `tests.determinism`, of which `.ci/run` makes the short form, takes each by itself."""
    x = fields()
    section, values = encode_fields(x, LATENT, MODEL)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "section").write_bytes(section)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | OTHERWISE,
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
    for level in native.levels():
        with native.using(level):
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
