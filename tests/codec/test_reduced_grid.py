"""Rows that are halved in longitude ahead of latitude: undone exactly, the same number of values, chosen near poles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.coefficients import Latents
from isopress.codec.latent.halvings import choose_ahead, part_seen, read_ahead, write_ahead
from isopress.codec.latent.reduced_grid import Ahead, AnyLevel, Blocks, Level, levels
from isopress.codec.latent.section import Latent, code_fields, decode_fields
from isopress.codec.latent.wavelet import fitted
from tests.fields import spectral_field, sphere_field
from tests.latent_models import small_model
from tests.strategies import Array, examples

QUICK = examples(15)
MODEL = small_model()
Case = tuple[tuple[int, int], tuple[int, ...]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Shapes that have blocks, and any numbers of halvings that are allowed."""
    shape = draw(st.integers(64, 150)), draw(st.integers(48, 200))
    blocks = Blocks.of(*shape)
    return shape, tuple(draw(st.lists(st.integers(0, blocks.most), min_size=blocks.count, max_size=blocks.count)))


def cells(latents: Latents, split: tuple[AnyLevel, ...]) -> Array:
    """Return all coefficients, each once."""
    bands = [
        strip.cells(band).ravel()
        for level, three in zip(split, latents.bands, strict=True)
        for index, band in enumerate(three)
        for strip in level.bands[index].strips
    ]
    return np.concatenate([latents.top.ravel(), *bands])


def rebuilt(latents: Latents, split: tuple[AnyLevel, ...], *, whole: bool = False) -> Array:
    low = latents.top
    for level, bands in zip(split[::-1], latents.bands[::-1], strict=True):
        low = level.synthesise(low, bands, whole=whole)
    return low


@QUICK
@given(cases(), st.booleans())
def test_synthesis_undoes_analysis_whatever_is_halved_ahead(case: Case, periodic: bool) -> None:
    shape, ahead = case
    x = np.random.default_rng(shape).normal(size=shape)
    split = levels(*shape, periodic, ahead)
    latents = Latents.of(x, split)
    assert cells(latents, split).size == x.size
    assert latents.top.shape == levels(*shape, periodic)[-1].low.shape
    np.testing.assert_allclose(rebuilt(latents, split), x, rtol=0, atol=1e-7)


@QUICK
@given(cases(), st.booleans(), st.sampled_from([1.0, 64.0, 1e4, 2.0**30]))
def test_whole_synthesis_gives_integers_near_the_float_ones(case: Case, periodic: bool, size: float) -> None:
    shape, ahead = case
    split = levels(*shape, periodic, ahead)
    latents = Latents.of(np.random.default_rng(shape).normal(size=shape) * size, split)
    latents = Latents(np.rint(latents.top), tuple(tuple(np.rint(b) for b in bands) for bands in latents.bands), 0)
    whole, real = rebuilt(latents, split, whole=True), rebuilt(latents, split)
    assert np.array_equal(whole, np.rint(whole))
    assert np.abs(whole - real).max() <= 16  # a quarter of a step


def energies(x: Array, ahead: tuple[int, ...]) -> list[float]:
    """Return the energy of all coefficients with halvings ahead, and without."""
    splits = levels(*x.shape, True, ahead), levels(*x.shape, True)
    return [float(np.square(cells(Latents.of(x, split), split)).sum()) for split in splits]


def test_energy_is_nearly_kept_where_rows_of_different_lengths_meet() -> None:
    ahead = (3, 2, 1, 1, *[0] * 16, 1, 1, 2, 3)
    assert len(ahead) == Blocks.of(97, 192).count
    zoned, plain = energies(sphere_field(97, 192), ahead)
    assert zoned == pytest.approx(plain, rel=0.05)


def test_a_field_alike_all_over_the_sphere_has_less_to_say_near_the_poles() -> None:
    x = sphere_field(129, 256) / 0.05
    ahead = choose_ahead(part_seen(x))
    assert ahead[0] >= 1
    assert ahead[-1] >= 1
    assert not any(ahead[5:-5])
    zoned, plain = (
        np.log2(1 + np.abs(cells(Latents.of(x, split), split))).sum()
        for split in (levels(*x.shape, True, ahead), levels(*x.shape, True))
    )
    assert zoned < 0.97 * plain


@pytest.mark.parametrize("shape", [(100, 200), (128, 64), (300, 90)])
def test_a_field_alike_on_the_grid_is_left_alone(shape: tuple[int, int]) -> None:
    assert not any(choose_ahead(part_seen(spectral_field(*shape, slope=1.5) * 5)))


@pytest.mark.parametrize("shape", [(1, 1), (63, 400), (400, 47), (1, 4000), (4000, 1), (3, 3)])
def test_small_fields_have_no_blocks(shape: tuple[int, int]) -> None:
    assert Blocks.of(*shape) == Blocks(0, 0, 0)
    assert choose_ahead(part_seen(np.ones(shape))) == ()
    assert levels(*shape, True, ()) == levels(*shape, True)


@pytest.mark.parametrize("shape", [(64, 48), (181, 360), (721, 1440), (720, 1440), (1801, 3600), (300, 51)])
def test_blocks_cover_all_rows(shape: tuple[int, int]) -> None:
    blocks = Blocks.of(*shape)
    left = shape[0] - (blocks.count - 1 << blocks.log2_rows)
    assert 1 << blocks.log2_rows < 2 * left <= 3 << blocks.log2_rows
    assert 16 <= blocks.count <= 32
    assert 24 <= shape[1] >> blocks.most < 48


def test_nothing_ahead_is_the_ordinary_wavelet() -> None:
    assert levels(100, 200, True, (0,) * Blocks.of(100, 200).count) == levels(100, 200, True)


def test_early_halvings_are_levels_of_their_own_and_splits_left_out_later() -> None:
    split = levels(64, 96, True, (2, 1, *[0] * 13, 1))
    finer = [level for level in split if isinstance(level, Ahead)]
    assert [(a.before.start, a.height, a.width, a.before.stride) for a in finer] == [
        (0, 8, 96, 1),
        (60, 4, 96, 1),
        (0, 4, 48, 2),
    ]
    zoned = [level for level in split if isinstance(level, Level) and len(level.zones) > 1]
    top = [(level.zones[0].strip.start, level.zones[0].strip.stride, level.zones[0].split) for level in zoned]
    assert top == [(0, 4, True), (0, 4, False), (0, 2, False)]
    assert split[len(finer) + len(zoned) :] == levels(64, 96, True)[len(zoned) :]


@pytest.mark.parametrize("periodic", [True, False])
def test_a_row_is_fitted_to_others_of_the_same_function(periodic: bool) -> None:
    def row(n: int) -> Array:
        """A slow wave at every 192/n-th longitude, as large as low bands of so many halvings are."""
        return np.cos(2 * np.pi * np.arange(n) / n) * np.sqrt(192 / n)

    for n in (48, 96, 192):
        for m in (48, 96, 192):
            wanted, found = row(m), fitted(row(n), m, periodic)
            inner = slice(None) if periodic else slice(4, -4)
            np.testing.assert_allclose(found[inner], wanted[inner], atol=0.02 * np.sqrt(192 / m))
    assert fitted(np.ones(23), 45, periodic).shape == (45,)
    assert fitted(np.ones(45), 12, periodic).shape == (12,)


def test_halvings_are_written_and_read() -> None:
    ahead = (3, 2, 0, *[0] * 20)
    writer = SymbolWriter(peaked=True)
    write_ahead(writer, ahead)
    reader = SymbolReader(memoryview(writer.finish()), peaked=True)
    assert read_ahead(reader, 721, 1440) == ahead


@pytest.mark.parametrize("changes", [[-1], [6], [5, 1], [31], [-31]])
def test_impossible_halvings_are_corrupt(changes: list[int]) -> None:
    writer = SymbolWriter(peaked=True)
    for change in (changes + [0] * 23)[:23]:
        writer.symbol(change + OFFSET_MAX, offset_model(True))
    reader = SymbolReader(memoryview(writer.finish()), peaked=True)
    with pytest.raises(CorruptPayloadError, match="halved"):
        read_ahead(reader, 721, 1440)


@examples(4)
@given(cases(), st.booleans(), st.integers(1, 2))
def test_sections_decode_to_what_was_coded_whatever_is_halved_ahead(case: Case, periodic: bool, n: int) -> None:
    shape, ahead = case
    x = np.stack([spectral_field(*shape, slope=1.5, seed=k) for k in range(n)])
    coded = code_fields(x, Latent(0.3, 0.0, periodic, corrected=False), MODEL, ahead=ahead)
    fields = coded.fields()
    np.testing.assert_array_equal(decode_fields(coded.section, x.shape, MODEL), fields)
    assert np.abs(fields - x).max() < 2


def test_a_sphere_is_coded_with_halvings_and_smaller_for_it() -> None:
    x = sphere_field(181, 360)
    chosen = code_fields(x, Latent(0.2, 0.0, True), MODEL)
    plain = code_fields(x, Latent(0.2, 0.0, True), MODEL, ahead=())
    assert chosen.section[0] & 32
    assert not plain.section[0] & 32
    assert len(chosen.section) < len(plain.section)
    np.testing.assert_array_equal(decode_fields(chosen.section, x.shape, MODEL), chosen.fields())
