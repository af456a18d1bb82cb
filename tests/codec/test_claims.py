"""Payloads that claim more values than their bytes can hold are refused before work or memory goes into them."""

import subprocess
import sys

import numpy as np
import pytest

from isopress.codec.encode import encode_chunk
from isopress.codec.encoded import PAID_BY_A_BYTE, UNPAID, Method, is_paid_for
from isopress.codec.limits import Bound

# A process of its own, which may take 768 MiB more than it has and 20 s for each method.
CLAIM = """
import contextlib, resource, signal, sys
from dataclasses import replace
import numpy as np
from isopress.codec.encode import ChunkDecoder
from isopress.codec.encoded import Method
from isopress.codec.errors import PayloadError
from tests.codec.test_encode import sample

samples = [sample(method) for method in Method if method != Method.LAYERS]
for encoded, x in samples:
    ChunkDecoder(encoded, x.dtype, x.shape).decode()
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (768 << 20),) * 2)
for encoded, x in samples:
    print(encoded.method, file=sys.stderr)
    signal.alarm(20)
    for shape in ((2**24, 4, 4), (2**26, 4, 4), (2**22, 4, 4), (1, 2**13, 2**13), (2**26, 1, 1), (2**10, 2**8, 2**8)):
        try:
            ChunkDecoder(encoded, np.dtype("f4"), shape).decode()
        except PayloadError:
            continue
        raise SystemExit(f"decoded {shape}")
    for i, (section, body) in enumerate(encoded.sections):  # counts and lengths, wherever they may be
        for at in range(0, min(len(body), 24), 1 if len(encoded.models) < 2 else 4):
            for number in (bytes([255, 255, 255, 255, 7]), bytes([255] * 8 + [127])):
                signal.alarm(20)
                changed = (section, body[:at] + number + body[at + len(number) :])
                claim = replace(encoded, sections=(*encoded.sections[:i], changed, *encoded.sections[i + 1 :]))
                with contextlib.suppress(PayloadError), np.errstate(all="ignore"):
                    ChunkDecoder(claim, x.dtype, x.shape).decode()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_claim_of_a_gigabyte_costs_next_to_nothing():
    result = subprocess.run([sys.executable, "-c", CLAIM], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_values_need_bytes_beyond_a_limit():
    assert is_paid_for(UNPAID, 0)
    assert not is_paid_for(UNPAID + PAID_BY_A_BYTE + 1, 1)
    assert is_paid_for(UNPAID + PAID_BY_A_BYTE, 1)


def test_constants_beyond_the_limit_are_stored_without_loss_and_so_are_paid_for(monkeypatch):
    monkeypatch.setattr("isopress.codec.encoded.UNPAID", 1000)
    x = np.full((1, 1000, 1000), 3.5, "f4")
    monkeypatch.setattr("isopress.codec.encoded.PAID_BY_A_BYTE", 2**16)
    encoded = encode_chunk(x, Bound("abs", 0.1))
    assert encoded.method == Method.LOSSLESS
    assert is_paid_for(x.nbytes, encoded.nbytes)
