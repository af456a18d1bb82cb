"""Latents decode from the SPEC alone: the second reader gets integers and corrections to the last bit."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load

from isopress.codec.latent.coefficients import Latents
from isopress.codec.latent.correction import Correction
from isopress.codec.latent.correction import SynthesisConfig as Config
from isopress.codec.latent.decorrelation import COSINE, IDENTITY, STORED, Mixing, identity
from isopress.codec.latent.reduced_grid import levels
from isopress.codec.latent.section import Latent
from isopress.codec.latent.weights import LatentModel
from tests.fields import drifting_fields, spectral_field
from tests.latent_models import (
    CONFIG,
    Tensors,
    encode_fields,
    file_content,
    read_latents,
    small_model,
    synthesis,
    visits,
)
from tests.spec import correction as spec_correction
from tests.spec import latent as spec_latent
from tests.strategies import Array

MODEL = small_model()


@cache
def tensors_of(model: LatentModel) -> Tensors:
    """Return what is in the file of small weights, without the transformer."""
    content = load(file_content(quiet=model.contexts.quiet.shape[-1]))
    return {k: tensor for k, tensor in content.items() if not k.startswith("synthesis.")}


def waves(*shape: int) -> Array:
    fields = drifting_fields(*shape) if len(shape) > 2 else spectral_field(*shape, slope=1.5)
    return fields + 0.1 * np.random.default_rng(shape).normal(size=shape)


def assert_read_alike(
    x: Array,
    latent: Latent,
    mixings: tuple[Mixing, ...] | None = None,
    model: LatentModel = MODEL,
    ahead: tuple[int, ...] | None = None,
) -> tuple[bytes, spec_latent.Decoded]:
    """Code fields and compare what both readers make of them."""
    section, values = encode_fields(x, latent, model, mixings=mixings, ahead=ahead)
    ours = spec_latent.decode(section, x.shape, tensors_of(model))
    theirs = read_latents(section, x.shape, model)
    for grid, channel in zip(ours.channels.values(), theirs, strict=True):
        assert np.array_equal(grid, channel)
    if not ours.corrected:
        found = spec_latent.restored(ours, {}, tensors_of(model)).reshape(x.shape)
        np.testing.assert_allclose(found, values, rtol=1e-12, atol=1e-12 * latent.step)
    return section, ours


CASES = [
    ((12, 17), 0.05),
    ((11, 14), 2.0),
    ((1, 23), 0.1),
    ((19, 1), 0.1),
    ((2, 2), 0.1),
    ((3, 3), 1e-3),
    ((4, 5), 1e-4),
    ((1, 1), 1.0),
    ((2, 9, 12), 0.1),
    ((3, 1, 7, 8), 0.2),
    ((2, 3, 6, 9), 0.1),
]


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(("shape", "step"), CASES)
def test_a_reader_written_from_the_spec_gets_the_same_latents(
    shape: tuple[int, ...], step: float, periodic: bool
) -> None:
    assert_read_alike(waves(*shape), Latent(step, 0.3, periodic))


def test_periodic_longitude_is_read_alike_at_widths_that_halve_often() -> None:
    x = waves(2, 9, 16)
    (plain, _), (closed, _) = (assert_read_alike(x, Latent(0.05, 0.0, periodic)) for periodic in (False, True))
    assert plain[1:] != closed[1:]


def test_values_of_every_size_are_read_alike() -> None:
    """Large steps leave quiet points and empty levels, small ones raw bits and escapes."""
    for step in (30.0, 3.0, 1e-5):
        x = np.zeros((2, 16, 18))
        x[:, :5, :7] = 10 * waves(2, 5, 7)
        assert_read_alike(x, Latent(step, 0.0, False))


@pytest.mark.parametrize("quiet", [1, 26])
def test_quiet_tables_of_any_length_are_read_alike(quiet: int) -> None:
    x = np.zeros((2, 12, 14))
    x[:, :5, :7] = waves(2, 5, 7)
    latent = Latent(0.5, 0.0, False)
    section, _ = assert_read_alike(x, latent, model=small_model(quiet=quiet))
    assert section != encode_fields(x, latent, MODEL)[0]


def test_corrected_fields_are_read_alike_up_to_their_floats() -> None:
    _, decoded = assert_read_alike(waves(16, 18), Latent(0.3, 0.0, True))
    assert decoded.corrected


@pytest.mark.parametrize("kind", [IDENTITY, COSINE, STORED])
def test_every_transform_is_read_alike(kind: int) -> None:
    n = 4
    cosine = np.cos(np.pi / n * np.arange(n)[:, None] * (np.arange(n) + 0.5)) * np.sqrt(2 / n)
    cosine[0] /= np.sqrt(2)
    rows = {COSINE: cosine, STORED: np.rint(127 * np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]) / 127}
    mixing = identity(n) if kind == IDENTITY else Mixing(kind, rows[kind])
    x = waves(n, 5, 6)
    x[:] = x[:1]  # channels that are left out
    _, decoded = assert_read_alike(x, Latent(0.2, 0.0, False), (mixing,))
    assert len(decoded.channels) < n if kind == COSINE else len(decoded.channels) == n


def test_fields_of_very_long_axes_are_rows_of_one_field() -> None:
    _, decoded = assert_read_alike(np.cumsum(waves(300, 1, 2), 0), Latent(3.0, 0.0, False))
    assert [grid.shape for grid in decoded.channels.values()] == [(300, 2)]


@pytest.mark.parametrize("size", [(2, 50, 62), (47, 66)])
def test_scale_offsets_of_phases_with_many_points_are_read_alike(size: tuple[int, ...]) -> None:
    """The small random networks are far off, so that offsets are large, in both directions."""
    x = waves(*size)
    with_offsets, _ = assert_read_alike(x, Latent(0.05, 0.0, False))
    assert with_offsets[0] & 8
    split = levels(*size[-2:], False)
    channels = [Latents.of(y / 0.05, split) for y in x.reshape(-1, *size[-2:])]
    assert len({visit.offset for visit in visits(channels, split, MODEL.contexts)}) > 3


@pytest.mark.parametrize(
    ("shape", "ahead", "periodic"),
    [
        ((64, 48), (1, 1, 0, *[0] * 11, 1, 1), True),
        ((66, 96), (2, 1, 2, 0, 1, *[0] * 10, 2), True),
        ((70, 99), (*[0] * 13, 1, 2, 1, 2), False),
        ((2, 65, 49), (1,) * 16, True),
    ],
)
def test_rows_that_are_halved_ahead_are_read_alike(
    shape: tuple[int, ...], ahead: tuple[int, ...], periodic: bool
) -> None:
    section, _ = assert_read_alike(waves(*shape), Latent(0.3, 0.0, periodic, corrected=False), ahead=ahead)
    assert section[0] & 32


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
