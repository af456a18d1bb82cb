"""One payload, whatever computes it: other matrix kernels, other numbers of threads, another process."""

import hashlib
import os
import subprocess
import sys

import numpy as np

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
