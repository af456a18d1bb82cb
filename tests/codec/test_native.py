"""The compiled kernels: every instruction set of this machine gives what numpy gives, to the last bit."""

import numpy as np
import pytest

from isopress.codec import native
from isopress.codec.bounded.geometry import CONTEXTS, PAD
from isopress.codec.bounded.predictor import ALONE, Condition, Neighbours, Prediction, predict
from isopress.codec.bounded.reference_order import slots_of
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.encode import decode_chunk, encode_chunk
from isopress.codec.entropy.coder import Distribution, SymbolReader, SymbolWriter
from isopress.codec.errors import ArgumentError, PayloadError
from isopress.codec.limits import Bound

TABLES = load_pyramid().tables
COMPILED = [name for name in native.levels() if name != native.NUMPY]
needs_kernels = pytest.mark.skipif(not COMPILED, reason="the kernels were not built")


def seen(rng: np.random.Generator, shape: tuple[int, int, int], scale: float, proxies: int) -> Neighbours:
    """Return padded planes of random fields, smooth and rough places side by side."""
    batch, rows, columns = shape
    padded = batch, rows + 1 + 2 * PAD, columns + 1 + 2 * PAD
    parities = [(0, 0), (0, 1), (1, 0), (1, 1)]

    def values() -> np.ndarray:
        rough = rng.normal(0, 1, padded) * np.exp(rng.normal(0, 3, padded))
        return np.rint(np.clip(np.cumsum(rough, 2) * scale, -(2.0**27), 2.0**27))

    errors = {p: rng.integers(-300, 300, padded).astype(np.int32) // rng.integers(1, 300, padded) for p in parities}
    return Neighbours(
        {p: values() for p in parities},
        {p: e.astype(np.int32) for p, e in errors.items()},
        tuple({p: values() for p in parities} for _ in range(proxies)),
    )


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 31), (2, 3, 32), (3, 5, 33), (1, 70, 1), (7, 2, 2), (1, 40, 100)])
def test_every_instruction_set_predicts_what_numpy_predicts(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(shape)
    for kind in range(7):
        model = load_pyramid(references=bool(kind))
        planes = seen(rng, shape, 10.0 ** rng.integers(0, 7), len(slots_of(kind)))
        around = Neighbours(planes.values, planes.errors, planes.proxies, Condition(kind, kind % 4) if kind else ALONE)
        for context in CONTEXTS:
            level = int(rng.integers(0, 8))
            network = model.networks[min(level, len(model.networks) - 1)][context.name]
            with native.using(native.NUMPY):
                wanted = predict(network, context, around, shape, level)
            for name in COMPILED:
                with native.using(name):
                    assert_same(predict(network, context, around, shape, level), wanted)


def assert_same(found: Prediction, wanted: Prediction) -> None:
    np.testing.assert_array_equal(found.value, wanted.value)
    np.testing.assert_array_equal(found.scale, wanted.scale)
    np.testing.assert_array_equal(found.tail, wanted.tail)


@needs_kernels
def test_kernels_refuse_planes_that_are_too_small() -> None:
    rng, shape = np.random.default_rng(1), (1, 4, 40)
    around = seen(rng, shape, 100.0, 0)
    small = {p: np.ascontiguousarray(plane[:, :-4]) for p, plane in around.values.items()}
    errors = {p: np.ascontiguousarray(plane[:, :-4]) for p, plane in around.errors.items()}
    network = load_pyramid().networks[-1]["V"]
    with native.using(COMPILED[0]), pytest.raises(ValueError, match="plane"):
        predict(network, CONTEXTS[2], Neighbours(small, errors), shape, 0)


@needs_kernels
def test_kernels_refuse_another_dtype() -> None:
    rng, shape = np.random.default_rng(1), (1, 4, 40)
    around = seen(rng, shape, 100.0, 0)
    wide = {p: plane.astype(np.int64) for p, plane in around.errors.items()}
    with native.using(COMPILED[0]), pytest.raises(ValueError, match="buffer"):
        predict(load_pyramid().networks[-1]["D"], CONTEXTS[0], Neighbours(around.values, wide), shape, 0)  # type: ignore[arg-type]


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
    with native.using(level):
        writer = SymbolWriter(TABLES, peaked=peaked)
        for i, (symbols, scale, tail) in enumerate(parts):
            writer.phase(symbols, scale, tail)
            writer.symbol(i, Distribution(None, 5))
        return writer.finish()


@needs_kernels
@pytest.mark.parametrize("seed", range(40))
def test_kernels_and_constriction_write_and_read_the_same_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, peaked = phases(rng), bool(seed % 2)
    data = written(native.NUMPY, parts, peaked)
    for level in native.levels():
        assert written(level, parts, peaked) == data
        with native.using(level):
            reader = SymbolReader(TABLES, memoryview(data), peaked=peaked)
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
    for level in native.levels():
        with native.using(level):
            reader = SymbolReader(TABLES, memoryview(data))
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


@needs_kernels
def test_every_level_gives_the_same_payloads_and_values() -> None:
    for seed in range(200):
        x, bound = varied(seed)
        with native.using(native.NUMPY):
            wanted = encode_chunk(x, bound)
        for level in native.levels():
            with native.using(level):
                assert encode_chunk(x, bound) == wanted, (seed, level)
                values = decode_chunk(wanted, x.dtype, x.shape)
            if level == native.levels()[0]:
                first = values
            np.testing.assert_array_equal(values.view(np.uint8), first.view(np.uint8))


def test_a_level_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "mmx")
    with pytest.raises(ArgumentError, match="mmx"):
        native._default()
