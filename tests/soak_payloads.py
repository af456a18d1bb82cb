"""Damaged payloads of every method for the soak: mutated, their checksums made right, decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import isopress
from isopress import ModelNotFoundError, PayloadError
from isopress.codec.bounded import block, fields_alone
from isopress.codec.encoded import Method
from isopress.codec.latent import section as latents
from isopress.codec.native import dispatch
from isopress.codec.vaeformer import section as patches
from isopress.format.api import decode
from isopress.format.decode_cache import CACHE
from isopress.format.layers import Layer, write_layers
from isopress.format.payload import PayloadInfo, pack, parse
from tests.contract import Array, smooth
from tests.fields import blocky
from tests.format.test_payload import repaired
from tests.golden_payloads import all_golden
from tests.make_golden import SMALL, drifting
from tests.soak_arrays import array_of, settings_of

# Of a thousand payloads so many are of a method; what decodes in floats takes a hundred times as long.
OFTEN = {
    Method.CONSTANT: 60,
    Method.LOSSLESS: 180,
    Method.PYRAMID: 300,
    Method.INTEGERS: 150,
    Method.BLOCK: 230,
    Method.LATENT: 2.5,
    Method.BASED: 0.5,
    Method.LAYERS: 60,
    Method.VAEFORMER: 15,
    Method.ON_VAEFORMER: 2,
}
LONGEST = 6000  # bytes of a payload to begin from
NUMPY_SHARE = 0.02  # of payloads that the level numpy decodes: it takes ten times as long
CHECKSUMS = ((fields_alone, "checksum"), (block, "checksum"), (latents, "_checksum"), (patches, "_checksum"))

Pool = dict[Method, list[bytes]]


def pool(seed: int, count: int = 300) -> Pool:
    """Return payloads of every method to begin from: the golden ones and more than `count` new ones."""
    found = [one.payload for one in all_golden()]
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            x = array_of(rng, large=False)
            found.append(isopress.compress(x, **settings_of(rng, x, latent=False)))
        found += [layered(rng) for _ in range(count // 10)]
        found += [isopress.compress(x, **settings) for x, settings in floats(rng)]
    methods: Pool = {method: [] for method in Method}
    for payload in found:
        if len(payload) < LONGEST:
            methods[Method(isopress.inspect(payload).method)].append(payload)
    return methods


def layered(rng: np.random.Generator) -> bytes:
    """Return a payload of a chunk that was written twice more, in part."""
    shape = tuple(int(n) for n in rng.integers(4, 12, 3))
    below = isopress.compress(smooth(*shape).astype("f4"), bound=0.1)
    layers = [Layer(below, (0, 0, 0))]
    for _ in range(2):
        start = tuple(int(rng.integers(n)) for n in shape)
        x = smooth(*(n - at for n, at in zip(shape, start, strict=True))).astype("f4")
        hole = rng.random() < 0.5
        if hole:
            x.reshape(-1)[:: int(rng.integers(1, 5))] = np.nan
        layers.append(Layer(isopress.compress(x, bound=0.1), start, x[:1, :1, :1].tobytes() if hole else None))
    models = tuple(sorted({model for layer in layers for model in isopress.inspect(layer.payload).models}))
    info = PayloadInfo(np.dtype("<f4"), shape, "C", "abs", Method.LAYERS, bound=0.1, models=models)
    return pack(info, [(12, write_layers(layers))])


def floats(rng: np.random.Generator) -> Iterator[tuple[Array, dict[str, Any]]]:
    """Yield small arrays and settings whose payloads have latents."""
    for side in (7, 12, 16):
        x = drifting(2)[:, :side, : side + 5]
        yield x, {"mode": "latent", "rmse": float(rng.uniform(0.2, 2))}
        yield blocky(shape=(side, side + 4)), {"mode": "latent", "rmse": 0.5, "model": SMALL}
        yield blocky(2, shape=(side + 3, side)), {"bound": 0.5, "model": SMALL}


def damaged(rng: np.random.Generator, payloads: Pool) -> bytes:
    """Return a payload with bits flipped, bytes overwritten, cut out, repeated or taken from another."""
    methods = [method for method in Method if payloads[method]]
    chances = np.array([OFTEN[method] for method in methods])
    chosen = payloads[methods[int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum()))]]
    data = bytearray(chosen[int(rng.integers(len(chosen)))])
    header = int.from_bytes(data[6:8], "little")
    dice = rng.random(4)
    for _ in range((1, 1, 1, 2, 4, 16)[int(6 * dice[0])]):
        first = 16 if dice[1] < 0.95 else 0  # what precedes are magic, version, length and checksums
        first = min(header, len(data) - 1) if dice[1] < 0.6 else first  # headers alone would soon be known
        at = int(rng.integers(first, len(data) if dice[2] < 0.7 else max(first + 1, min(first + 60, len(data)))))
        mutate(rng, data, at, chosen)
    length = int.from_bytes(data[6:8], "little")
    return repaired(data) if dice[3] < 0.98 and 16 <= length <= len(data) else bytes(data)


def mutate(rng: np.random.Generator, data: bytearray, at: int, others: list[bytes]) -> None:
    """Change `data` at one place, in one of many ways."""
    kind = int(rng.integers(8))
    if kind <= 2:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 3:
        data[at] = (0, 1, 127, 128, 254, 255)[int(rng.integers(6))]
    elif kind == 4:
        data[at : at + 8] = rng.bytes(len(data[at : at + 8]))
    elif kind == 5:
        number = (2**31 - 1, 2**32 - 1, 2**62, 0x7FF0000000000000, 0x7FEFFFFFFFFFFFFF)[int(rng.integers(5))]
        data[at : at + 8] = number.to_bytes(8, "little")[: len(data[at : at + 8])]
    elif kind == 6:
        data[at : at + 40] = others[int(rng.integers(len(others)))][at : at + 40]
    elif len(data) > 40:
        del data[at : at + int(rng.integers(1, 9))]
        data += bytes(int(rng.integers(0, 9)))


class Forged(bytes):
    """A checksum that is right whatever it is compared with, as a forger would have made it."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def forged(*_: object) -> Forged:
    """Return what no comparison fails with."""
    return Forged(b"1234")


@contextmanager
def without_inner_checksums() -> Iterator[None]:
    """Let what is decoded pass for what the writer had; else checksums of integers hide what comes after them."""
    honest = [getattr(module, name) for module, name in CHECKSUMS]
    for module, name in CHECKSUMS:
        setattr(module, name, forged)
    try:
        yield
    finally:
        for (module, name), function in zip(CHECKSUMS, honest, strict=True):
            setattr(module, name, function)


def check_payload(seed: int, payloads: Pool) -> str:
    """Decode one damaged payload, or some of its fields; return how it ended; raise what is wrong."""
    rng = np.random.default_rng(seed)
    data = damaged(rng, payloads)
    levels, dice = dispatch.levels(), rng.random(4)
    level = levels[-1] if len(levels) == 1 or dice[0] < NUMPY_SHARE else levels[int(dice[1] * (len(levels) - 1))]
    try:
        with dispatch.using(level), np.errstate(all="ignore"):
            if dice[2] < 0.5:
                with without_inner_checksums():
                    return _read(data, dice[3])
            return _read(data, dice[3])
    except (PayloadError, ModelNotFoundError) as error:
        return type(error).__name__
    finally:
        CACHE.clear()


def _read(data: bytes, chance: float) -> str:
    parsed = parse(data)
    shape = parsed.info.shape
    if chance < 0.2 and len(shape) > 2 and shape[0]:
        at = int(chance / 0.2 * shape[0])
        part = decode(parsed, (at, slice(None)))
        assert (part.shape, part.dtype) == (shape[1:], parsed.info.dtype)
        return "decoded in part"
    y = decode(parsed)
    assert (y.shape, y.dtype) == (shape, parsed.info.dtype)
    return "decoded"
