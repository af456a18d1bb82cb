"""One payload, whatever computes it: other matrix kernels, other numbers of threads, another process."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

import isopress
from tests.fields import spectral_field

SCRIPT = """
import hashlib, sys
import numpy as np
import isopress
x = np.load(sys.argv[1])
payload = isopress.compress(x, mode="abs", bound=0.02)
print(hashlib.sha256(payload).hexdigest(), hashlib.sha256(isopress.decompress(payload).tobytes()).hexdigest())
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
        {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"},
        {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"},
    ],
    ids=lambda s: " ".join(s.values())[:20],
)
def test_other_kernels_and_thread_counts_write_and_read_the_same_bytes(settings, tmp_path):
    x = (280 + 10 * spectral_field(120, 240, slope=2.2, seed=5)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    payload = isopress.compress(x, mode="abs", bound=0.02)
    expected = [
        hashlib.sha256(payload).hexdigest(),
        hashlib.sha256(np.ascontiguousarray(isopress.decompress(payload)).tobytes()).hexdigest(),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "x.npy")],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if "NPY_DISABLE_CPU_FEATURES" in settings and done.returncode:
        pytest.skip("this numpy or processor cannot switch those features off")
    assert done.stdout.split() == expected, done.stderr
