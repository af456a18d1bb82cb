"""Corrections come out of the SPEC alone: a plain numpy transformer gets them to the last bit."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isopress.codec.latent.correction import Correction
from isopress.codec.latent.correction import SynthesisConfig as Config
from tests.fields import spectral_field
from tests.latent_models import CONFIG, Tensors, synthesis
from tests.spec import correction as spec_correction
from tests.strategies import Array

THREE = replace(CONFIG, blocks=3)


class Reads(dict[str, NDArray[np.generic]]):
    """Tensors that know which of them were looked at."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.names = set[str]()

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        self.names.add(name)
        return super().__getitem__(name)


@cache
def weights(config: Config, faint: bool = False) -> tuple[dict[str, Any], Tensors]:
    """Return random weights as a file has them, none of whose tensors is 0 or 1 throughout.

    With `faint` the first tokens are so small that the epsilon of layer norms shows.
    """
    rng = np.random.default_rng(5)
    shape, tensors = synthesis(3, 0.3, config).stored()
    noisy: dict[str, Array] = {name: t.astype(np.float64) + rng.normal(0, 0.2, t.shape) for name, t in tensors.items()}
    if faint:
        small = {"embed", "quality", "conv"}
        noisy = {name: t * 2e-4 if small & set(name.split(".")) else t for name, t in noisy.items()}
    return shape, {name: t.astype(np.float16) for name, t in noisy.items()}


def rough(*shape: int) -> Array:
    return 6 * spectral_field(*shape, slope=1.5) + np.random.default_rng(shape).normal(3, 0.5, shape)


def assert_corrected_alike(x: Array, periodic: bool, config: Config, faint: bool = False) -> Array:
    """Return the correction of `x`, rounded to units, after a comparison with that of the other transformer."""
    shape, tensors = weights(config, faint)
    units = np.rint(64 * x)
    ours = units / 64 + spec_correction.correction(units.astype(np.int64), periodic, shape, tensors)
    theirs = units / 64
    Correction.restore(config, tensors).correct(theirs, periodic)
    np.testing.assert_array_equal(ours, theirs)
    assert abs(ours - units / 64).max() > 0.1
    return ours - units / 64


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("window", [3, 4])
@pytest.mark.parametrize("shape", [(24, 32), (17, 23), (40, 96), (33, 50), (64, 128)])
def test_a_transformer_written_from_the_spec_gives_the_same_correction(
    shape: tuple[int, int], window: int, periodic: bool
) -> None:
    assert_corrected_alike(rough(*shape), periodic, replace(THREE, window=window))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (3, 30), (300, 5), (20, 16), (16, 8)])
def test_fields_smaller_than_what_is_looked_at_are_corrected_alike(shape: tuple[int, int]) -> None:
    for periodic in (False, True):
        assert_corrected_alike(rough(*shape), periodic, THREE)


def test_only_a_width_of_whole_tokens_closes() -> None:
    for width, differ in ((48, True), (50, False)):
        x = rough(40, width)
        open_, closed = (assert_corrected_alike(x, periodic, THREE) for periodic in (False, True))
        assert (open_ != closed).any() == differ


@pytest.mark.parametrize(("size", "mean"), [(0, 3), (1e-4, 0), (1e4, 0), (1, 1e4)])
def test_fields_of_every_size_are_corrected_alike(size: float, mean: float) -> None:
    assert_corrected_alike(rough(24, 40) * size + mean, False, THREE)


@pytest.mark.parametrize(
    "config",
    [
        replace(THREE, heads=4, blocks=4, mlp_ratio=2.5),
        replace(THREE, heads=1, blocks=1),
        replace(THREE, cell=4, token=16),
        replace(THREE, cell=4, token=8, window=2, blocks=4),
        replace(THREE, cell=3, token=9),
        replace(THREE, cell=1, token=5),
    ],
)
def test_transformers_of_every_shape_correct_alike(config: Config) -> None:
    for shape, periodic in (((36, 90), True), ((41, 70), False)):
        assert_corrected_alike(rough(*shape), periodic, config)


def test_layer_norms_have_the_same_epsilon() -> None:
    assert_corrected_alike(rough(40, 96), False, replace(THREE, blocks=1), faint=True)


def test_the_spec_names_every_tensor_of_a_synthesis() -> None:
    shape, tensors = weights(THREE)
    reads = Reads(tensors)
    spec_correction.correction(np.rint(64 * rough(16, 16)).astype(int), False, shape, reads)
    assert reads.names == {name for name in tensors if name.startswith("synthesis.")}
