"""The compiled kernels: every instruction set of this machine gives what numpy gives, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest

from isopress.codec.bounded import pyramid
from isopress.codec.bounded.geometry import CONTEXTS, kernel_geometry
from isopress.codec.bounded.predictor import LIMIT, Condition
from isopress.codec.bounded.pyramid import Coding, Quantisation, decode_fields, encode_fields
from isopress.codec.bounded.reference_fit import logarithms
from isopress.codec.bounded.reference_order import slots_of
from isopress.codec.bounded.reference_prediction import Proxies
from isopress.codec.bounded.traversal import depth
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.entropy import tables
from isopress.codec.entropy.coder import OFFSET_MAX, SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import Distribution
from isopress.codec.errors import ArgumentError, PayloadError
from isopress.codec.latent.coefficients import OFFSET_FROM, TRADE, choose
from isopress.codec.latent.context_model import Prediction
from isopress.codec.limits import Bound
from isopress.codec.native import contexts, dispatch, entropy
from isopress.codec.native.references import combine, fit
from isopress.codec.native.walk import Walk
from isopress.codec.values.quantiser import UNITS, Quantiser, Steps
from tests.fields import decode_chunk, half_smooth

COMPILED = [name for name in dispatch.levels() if name != dispatch.NUMPY]
needs_kernels = pytest.mark.skipif(not COMPILED, reason="the kernels were not built")


def fields(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Return fields in steps, smooth and rough places side by side, with anchors that are whole."""
    rough = rng.normal(0, 1, shape) * np.exp(rng.normal(0, 3, shape))
    return np.clip(np.cumsum(rough, 2) * 10.0 ** rng.integers(-2, 5), -(2.0**21), 2.0**21)


def references(rng: np.random.Generator, y: np.ndarray, kind: int) -> Proxies | None:
    """Return what references of this kind might say of fields."""
    if not kind:
        return None
    found = {}
    for slot in slots_of(kind):
        about = y * UNITS * rng.choice([0, 0.1, 1]) + rng.normal(0, 10.0 ** rng.integers(0, 7), y.shape)
        found[slot] = np.clip(np.rint(about), -LIMIT, LIMIT).astype(np.int32)
    coefficients = rng.integers(-127, 128, (len(y), 3, 4)).astype(np.int8)
    return Proxies(found, coefficients, Condition(kind, kind % 4))


SHAPES = [(1, 2, 3), (2, 1, 9), (2, 11, 1), (1, 17, 64), (3, 5, 33), (7, 3, 4), (1, 36, 101), (1, 32, 48), (2, 6, 5)]


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set_walks_as_numpy_does(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(shape)
    for kind in range(7):
        model = load_pyramid(references=bool(kind))
        y, step = fields(rng, shape), 1 << depth(*shape[1:])
        proxies, each = references(rng, y, kind), bool(kind % 2)
        valid = rng.random(shape) < 0.9 if kind % 3 == 1 else None
        coding = Coding(model, kind % 2 == 0, Quantisation(kind % 4, kind > 4))
        anchors = np.rint(y[:, ::step, ::step])
        y = np.rint(y) if coding.quantisation.snap else y
        walk_alike(y, valid, anchors, coding, proxies, each=each)


def walk_alike(
    y: np.ndarray, valid: np.ndarray | None, anchors: np.ndarray, coding: Coding, proxies: Proxies | None, *, each: bool
) -> list[bytes]:
    """Code fields by every instruction set, with a stream for all or for each; return the streams, all alike."""
    wanted: tuple[list[bytes], np.ndarray] | None = None
    for name in reversed(dispatch.levels()):
        with dispatch.using(name):
            writers = [SymbolWriter(peaked=each) for _ in range(len(y) if each else 1)]
            v = encode_fields(y, valid, anchors, writers, coding, proxies)
            streams = [writer.finish() for writer in writers]
            wanted = wanted or (streams, v)
            assert streams == wanted[0]
            np.testing.assert_array_equal(v, wanted[1])
            readers = [SymbolReader(memoryview(stream), peaked=each) for stream in streams]
            np.testing.assert_array_equal(decode_fields(y.shape, anchors, readers, coding, proxies), v)
    assert wanted
    return wanted[0]


@needs_kernels
@pytest.mark.parametrize("snap", [False, True])
@pytest.mark.parametrize("shape", [(1, 130, 128), (2, 40, 33)])
def test_values_are_coded_as_their_steps_are(shape: tuple[int, int, int], snap: bool) -> None:
    rng = np.random.default_rng(shape[1])
    t = (280 + fields(rng, shape) * 0.37).astype(np.float32)  # many are next to the middle between two symbols
    steps, step = Steps(t, 271.3, 0.37, snap), 1 << depth(*shape[1:])
    coding, anchors = Coding(load_pyramid(), True, Quantisation(0, snap)), np.rint(steps[:, ::step, ::step])
    for name in COMPILED:
        with dispatch.using(name):
            found = []
            for y in (steps[:], steps, Steps(t.astype(np.float64), 271.3, 0.37, snap)):
                writer = SymbolWriter()
                v = encode_fields(y, None, anchors, [writer], coding)
                found.append((writer.finish(), v.tobytes()))
            assert found[0] == found[1] == found[2]


# Kind of references, fields, a stream for each, part of valid points, whether values are snapped to whole steps.
QUIET = [
    (0, 1, False, None, False),
    (0, 3, True, None, True),
    (3, 1, True, 0.9, True),
    (3, 1, True, 0.9, False),
    (6, 2, True, None, False),
    (5, 2, False, None, True),
]


@needs_kernels
@pytest.mark.parametrize(("kind", "size", "each", "part", "snap"), QUIET)
def test_every_instruction_set_finds_the_same_quiet_points(
    kind: int, size: int, each: bool, part: float | None, snap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(kind)
    y = np.stack([half_smooth(129, 128) * (1 - i / 2) for i in range(size)])  # one of them is quiet nearly everywhere
    y = np.rint(y) if snap else y
    proxies = references(rng, y, kind)
    if proxies is not None:
        exact = {slot: (np.rint(y * UNITS) * (slot == 0)).astype(np.int32) for slot in proxies.fields}
        proxies = replace(proxies, fields=exact, coefficients=np.full((size, 3, 4), 32, np.int8))
    coding = Coding(load_pyramid(references=bool(kind)), True, Quantisation(0 if snap else 1, snap))
    valid, step = None if part is None else rng.random(y.shape) < part, 1 << depth(*y.shape[1:])
    anchors = np.rint(y[:, ::step, ::step])
    streams = walk_alike(y, valid, anchors, coding, proxies, each=each)
    monkeypatch.setattr(pyramid, "LEAST", y.size + 1)
    with dispatch.using(dispatch.NUMPY):
        writers = [SymbolWriter(peaked=each) for _ in streams]
        encode_fields(y, valid, anchors, writers, coding, proxies)
        assert streams != [writer.finish() for writer in writers]  # there were quiet points


@needs_kernels
def test_kernels_refuse_what_does_not_fit_together() -> None:
    model, shape = load_pyramid(), (1, 9, 9)
    with dispatch.using(COMPILED[0]):
        writer = entropy.RangeEncoder(False)
        good = {"wrap": False, "snap": False, "geometries": tuple(kernel_geometry(c) for c in CONTEXTS), "proxies": (),
                "levels": tuple((64, 0, tuple(model.networks[-1][c.name].kept(dispatch.level(), 0) for c in CONTEXTS))
                                for _ in range(3)),
                "tables": tables.kept(), "coefficients": None, "streams": (writer.kept,)}  # fmt: skip
        y, v = np.zeros(shape), np.zeros(shape, np.int32)
        Walk(**good).through(v, y)  # type: ignore[arg-type]
        related = load_pyramid(references=True).networks[-1]["D"].kept(dispatch.level(), 0, 3, 0)
        bad = [
            ({"streams": (writer.kept,) * 2}, v, "streams"),
            ({"levels": ((64, 0, (related,) * 3),) * 3}, v, "bug"),
            ({"levels": ((65, 0, (related,) * 3),)}, v, "width"),
            ({"tables": writer.kept}, v, "Capsule"),
            ({}, v[:, :-1], "buffer"),
            ({}, v.astype(np.int64), "buffer"),
            ({"proxies": (v[:, 1:],), "coefficients": np.zeros((1, 3, 1), np.int8)}, v, "buffer"),
        ]
        for change, values, message in bad:
            with pytest.raises(ValueError, match=message):
                Walk(**{**good, **change}).through(values, y)  # type: ignore[arg-type]


@needs_kernels
def test_kernels_refuse_references_that_are_not_there() -> None:
    decoded, out = np.zeros((3, 9, 9), np.int32), np.zeros((9, 9), np.int32)
    y, expected, logs = np.zeros((9, 9)), np.full(2, 64, np.int32), logarithms()
    with dispatch.using(COMPILED[0]):
        combine(decoded, {0: 2, 2: 2}, 0, out)
        fit(y, (out, out), expected, logs)
        for weights, exponent in (
            ({3: 1}, 0),
            ({-1: 1}, 0),
            ({0: 9}, 0),
            ({}, 0),
            ({0: 1}, 31),
            ({0: 1, 1: 1 << 40}, 0),
        ):
            with pytest.raises(ValueError, match="term"):
                combine(decoded, weights, exponent, out)
        with pytest.raises(ValueError, match="buffer"):
            combine(decoded, {0: 1}, 0, out[:8])
        for arguments in (
            (y[:8], (out, out), expected, logs),
            (y, (out,), expected, logs),
            (y, (out, out), expected, logs[1:]),
        ):
            with pytest.raises(ValueError, match="buffer"):
                fit(*arguments)
        with pytest.raises(ValueError, match="number of its proxies"):
            fit(y, (out,) * 5, np.zeros(5, np.int32), logs)


def phases(rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return symbols, scale indexes and tail classes of a few phases, with escapes and raw bits."""
    found = []
    for _ in range(rng.integers(0, 4)):
        n = int(10 ** rng.uniform(0, 3.5))
        scale = rng.integers(-30, rng.integers(-20, 200), n).astype(np.int16)
        spread = np.exp2(scale / 8) * 10.0 ** rng.uniform(-2, 0)
        symbols = np.clip(np.rint(rng.standard_t(2, n) * spread), -(2**26), 2**26).astype(np.int32)
        found.append((symbols, scale, rng.integers(0, 4, n).astype(np.int8)))
    return found


def written(level: str, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], peaked: bool) -> bytes:
    with dispatch.using(level):
        writer = SymbolWriter(peaked=peaked)
        for i, (symbols, scale, tail) in enumerate(parts):
            writer.phase(symbols, scale, tail)
            writer.symbol(i, Distribution(None, 5))
        return writer.finish()


@needs_kernels
@pytest.mark.parametrize("seed", range(40))
def test_kernels_and_constriction_write_and_read_the_same_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, peaked = phases(rng), bool(seed % 2)
    data = written(dispatch.NUMPY, parts, peaked)
    for level in dispatch.levels():
        assert written(level, parts, peaked) == data
        with dispatch.using(level):
            reader = SymbolReader(memoryview(data), peaked=peaked)
            for i, (symbols, scale, tail) in enumerate(parts):
                np.testing.assert_array_equal(reader.phase(scale, tail), symbols)
                assert reader.symbol(Distribution(None, 5)) == i
            reader.finish()


@needs_kernels
@pytest.mark.parametrize("seed", range(40))
def test_damaged_words_end_in_an_error_or_other_symbols_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale, tail = rng.integers(-30, 90, 700).astype(np.int16), rng.integers(0, 4, 700).astype(np.int8)
    data = bytes([0]) + rng.bytes(4 * int(rng.integers(0, 300)))
    ends = []
    for level in dispatch.levels():
        with dispatch.using(level):
            reader = SymbolReader(memoryview(data))
            try:
                ends.append(reader.phase(scale, tail).tolist())
            except PayloadError as error:
                ends.append(type(error))
    assert all(end == ends[0] for end in ends)


def varied(seed: int) -> tuple[np.ndarray, Bound]:
    """Return an array and a bound: modes, dtypes, shapes, special values and sizes of steps in turn."""
    rng = np.random.default_rng(seed)
    shapes = [(20, 25), (1, 33), (21, 1), (2, 9, 12), (2, 2, 7, 6), (3, 5, 6), (32, 32), (5,), (17, 33)]
    shape = shapes[seed % len(shapes)]
    x = np.cumsum(rng.normal(size=shape), -1) * 10.0 ** rng.integers(-2, 3)
    x = x.astype((np.float32, np.float64)[seed % 2])
    if seed % 5 == 0:
        x[rng.random(shape) < 0.1] = np.nan
    if seed % 7 == 0:
        x = np.round(x, 1)
    bounds = [Bound("range", 10.0 ** rng.uniform(-5, -1)), Bound("abs", 10.0 ** rng.uniform(-4, 1)), Bound("lossless"),
              Bound("pointwise", 0.01, floor=0.1)]  # fmt: skip
    return x, bounds[seed % len(bounds)]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_every_level_makes_the_same_values_of_integers(dtype: str) -> None:
    rng = np.random.default_rng(0)
    v = rng.integers(-(2**28), 2**28, (3, 40, 33)).astype(np.int32) >> rng.integers(0, 28, (3, 40, 33)).astype(np.int32)
    quantiser = Quantiser(np.array([0.1, -1e30, 1e38]), np.array([1e-45, 2.0**-3, 3e36]))
    with dispatch.using(dispatch.NUMPY):
        wanted = quantiser.to_data(v, np.dtype(dtype))
    for level in dispatch.levels():
        with dispatch.using(level):
            np.testing.assert_array_equal(quantiser.to_data(v, np.dtype(dtype)), wanted)
            np.testing.assert_array_equal(quantiser.to_data(v.copy(), np.dtype(dtype), in_place=True), wanted)
            np.testing.assert_array_equal(quantiser.to_data(v[:, ::2], np.dtype(dtype)), wanted[:, ::2])


@needs_kernels
def test_every_level_gives_the_same_payloads_and_values() -> None:
    for seed in range(200):
        x, bound = varied(seed)
        found = []
        for level in dispatch.levels():
            with dispatch.using(level):
                coded = encode_chunk(x, bound)
                found.append((coded, decode_chunk(coded, x.dtype, x.shape).tobytes()))
        assert all(one == found[0] for one in found), seed


def test_a_level_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, "mmx")
    with pytest.raises(ArgumentError, match="mmx"):
        dispatch._default()


KERNELS = pytest.mark.skipif(dispatch.levels() == (dispatch.NUMPY,), reason="kernels were not built")


def made(seed: int, n: int, largest: int, reach: int) -> tuple[np.ndarray, Prediction]:
    """Return n coefficients in steps, and predictions with scale indexes up to `reach`, most of them active."""
    rng = np.random.default_rng(seed)
    mean = rng.integers(-200, 200, n).astype(np.float32)
    y = (mean / 64 + rng.laplace(0, largest, n)).astype(np.float32)
    y[::7] = mean[::7] / 64 + 0.5  # ties
    scale, tail = rng.integers(-30, reach, n).astype(np.int16), rng.integers(0, 4, n).astype(np.int8)
    return y, Prediction(mean, scale, tail, np.flatnonzero(rng.random(n) < 0.8))


@KERNELS
@pytest.mark.parametrize("n", [0, 1, OFFSET_FROM, 6000])
@pytest.mark.parametrize(("largest", "reach"), [(1, 40), (300, 90), (10_000_000, 260)])
@pytest.mark.parametrize(("last", "trade"), [(0, TRADE), (-OFFSET_MAX, 1.5), (OFFSET_MAX - 3, 0.0)])
def test_kernels_choose_the_symbols_and_the_scale_offset_that_numpy_does(
    n: int, largest: int, reach: int, last: int, trade: float
) -> None:
    found = []
    for level in (dispatch.levels()[0], dispatch.NUMPY):
        y, predicted = made(n, n, largest, reach)
        with dispatch.using(level):
            symbols, change = choose(y, predicted, last, trade)
        found.append((symbols, predicted.scale, change))
    (symbols, scale, change), (expected, their_scale, their_change) = found
    assert change == their_change
    np.testing.assert_array_equal(symbols, expected)
    np.testing.assert_array_equal(scale, their_scale)


@KERNELS
def test_kernels_refuse_points_and_tail_classes_that_are_none() -> None:
    y, predicted = made(1, 10, 1, 40)
    for active, tail, last in (([3, 3], 0, 0), ([10], 0, 0), ([-1], 0, 0), ([1], 4, 0), ([1], 0, OFFSET_MAX + 1)):
        seen = predicted.mean, predicted.scale, np.full(10, tail, np.int8), np.array(active, np.int32)
        with pytest.raises(ValueError, match=r"an active point|a tail class|a scale offset"):
            contexts.choose(tables.kept(), y, seen, tables.cost(), TRADE, last)
    seen = predicted.mean, predicted.scale, predicted.tail, np.array([1], np.int32)
    with pytest.raises(ValueError, match="buffer"):
        contexts.choose(tables.kept(), y, seen, tables.cost()[:1], TRADE, 0)
