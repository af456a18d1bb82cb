"""Damaged, cut and forged payloads of every method: an error, never a crash, a hang or unpaid memory."""

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import isopress
from isopress import ModelNotFoundError, PayloadError
from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.encoded import PAID_BY_A_BYTE, UNPAID, Method, Section, is_paid_for
from isopress.codec.errors import TruncatedPayloadError
from isopress.codec.limits import Bound
from isopress.format.payload import pack, parse
from tests.contract import Array, many_nans, smooth
from tests.fields import blocky
from tests.format.test_payload import repaired
from tests.make_golden import SMALL, drifting, with_nans

FLOATS = ("latent", "based", "vaeformer", "on vaeformer")  # their decoding takes its time
NAMES = ("constant", "lossless", "pyramid", "integers", "pointwise", "special", "block", "joint", *FLOATS)


def _arrays() -> dict[str, tuple[Array, dict[str, object]]]:
    rng = np.random.default_rng(0)
    signs = np.where(rng.random((20, 24)) < 0.5, -1, 1) * smooth(20, 24)
    signs[:2] = 0
    return {
        "constant": (np.full((30, 40), 1.5, "f4"), {"bound": 0.1}),
        "lossless": (rng.standard_normal((6, 7)), {"mode": "lossless"}),
        "pyramid": (smooth(2, 24, 30).astype("f4"), {"bound": 0.05}),
        "integers": (smooth(50).astype("f4"), {"bound": 0.01}),
        "pointwise": (signs.astype("f4"), {"mode": "pointwise", "bound": 0.01}),
        "special": (many_nans(), {"bound": 0.05}),
        "block": (smooth(5, 12, 14).astype("f4"), {"bound": 0.05, "context": "block"}),
        "latent": (drifting(4), {"mode": "latent", "rmse": 0.3}),
        "based": (drifting(12), {"bound": 3.0}),
        "vaeformer": (with_nans(blocky(shape=(9, 11))), {"mode": "latent", "rmse": 0.5, "model": SMALL}),
        "on vaeformer": (blocky(2, shape=(13, 17)), {"bound": 0.5, "model": SMALL}),
        "joint": (smooth(2, 2, 10, 12).astype("f4"), {"bound": [0.05, 0.1], "context": "block"}),
    }


@cache
def payloads() -> dict[str, bytes]:
    return {name: isopress.compress(x, **settings) for name, (x, settings) in _arrays().items()}  # type: ignore[arg-type]


def _sample(bits: int, count: int) -> list[int]:
    """Return at most `count` of `bits` positions, the same in every run."""
    return sorted(np.random.default_rng(bits).permutation(bits)[:count].tolist())


def test_these_payloads_use_every_method_and_section() -> None:
    infos = [isopress.inspect(payload) for payload in payloads().values()]
    # Layers hold such payloads; format/test_rewrites.py has theirs.
    assert {info.method for info in infos} == set(Method) - {Method.LAYERS}
    assert {section for info in infos for section, _ in info.sections} == set(Section) - {Section.LAYERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_cut_at_any_length_is_truncated(name: str) -> None:
    payload = payloads()[name]
    for length in range(len(payload)):
        with pytest.raises(TruncatedPayloadError):
            isopress.decompress(payload[:length])


@pytest.mark.parametrize("name", NAMES)
def test_any_flipped_bit_is_an_error(name: str) -> None:
    payload = payloads()[name]
    for bit in _sample(8 * len(payload), 2000):
        data = bytearray(payload)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PayloadError):
            isopress.decompress(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_behind_good_checksums_is_an_error_or_wrong_values(name: str) -> None:
    payload = payloads()[name]
    for bit in _sample(8 * len(payload), 30 if name in FLOATS else 150):
        data = bytearray(payload)
        data[bit // 8] ^= 1 << bit % 8
        _decode_forged(bytes(data))


@pytest.mark.parametrize("name", NAMES)
def test_sections_of_noise_behind_good_checksums_are_an_error_or_wrong_values(name: str) -> None:
    payload = payloads()[name]
    body = sum(length for _, length in isopress.inspect(payload).sections)
    rng = np.random.default_rng(1)
    for _ in range(5 if name in FLOATS else 20):
        _decode_forged(payload[: len(payload) - body] + rng.bytes(body))


def _decode_forged(data: bytes) -> None:
    if data[6:8] != b"\0\0" and int.from_bytes(data[6:8], "little") <= len(data):
        data = repaired(data)
    try:
        info = isopress.inspect(data)
        array = isopress.decompress(data)
    except (PayloadError, ModelNotFoundError):
        return
    assert (array.shape, array.dtype) == (info.shape, info.dtype)


@pytest.mark.parametrize("name", ["lossless", "pyramid", "integers", "pointwise", "special", "block", "joint"])
@pytest.mark.parametrize("shape", [(4096, 4096), (2**24, 1), (1, 2**24), (4, 2048, 2048), (2, 2**12, 2**11, 1)])
def test_a_few_bytes_that_claim_a_large_array_cost_little_more_than_that_array(
    name: str, shape: tuple[int, ...]
) -> None:
    parsed = parse(payloads()[name])
    info, sections = parsed.info, parsed.sections()
    data = pack(replace(info, shape=shape), sections)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError):
            isopress.decompress(data)
        # Units, values and the room of a walk; pages of them that nothing is written to take no memory.
        assert tracemalloc.get_traced_memory()[1] < 4 * isopress.inspect(data).original_nbytes
    finally:
        tracemalloc.stop()


# A process of its own, which may take 768 MiB more than it has and 20 s for each method.
CLAIM = """
import contextlib, resource, signal, sys
from dataclasses import replace
import numpy as np
from isopress.codec.chunk.decode import ChunkDecoder
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
