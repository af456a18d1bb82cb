"""The compiled kernels: every instruction set of this machine gives what numpy gives, to the last bit."""

import numpy as np
import pytest

from isopress.codec import native
from isopress.codec.bounded.geometry import CONTEXTS, PAD
from isopress.codec.bounded.predictor import ALONE, Condition, Neighbours, Prediction, predict
from isopress.codec.bounded.reference_order import slots_of
from isopress.codec.bounded.weights import load_pyramid

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
            network = model.networks[context.name]
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
    network = load_pyramid().networks["V"]
    with native.using(COMPILED[0]), pytest.raises(ValueError, match="plane"):
        predict(network, CONTEXTS[2], Neighbours(small, errors), shape, 0)


@needs_kernels
def test_kernels_refuse_another_dtype() -> None:
    rng, shape = np.random.default_rng(1), (1, 4, 40)
    around = seen(rng, shape, 100.0, 0)
    wide = {p: plane.astype(np.int64) for p, plane in around.errors.items()}
    with native.using(COMPILED[0]), pytest.raises(ValueError, match="buffer"):
        predict(load_pyramid().networks["D"], CONTEXTS[0], Neighbours(around.values, wide), shape, 0)  # type: ignore[arg-type]


def test_a_level_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "mmx")
    with pytest.raises(Exception, match="mmx"):
        native._default()
