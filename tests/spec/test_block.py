"""A block decodes from the SPEC alone: the second reader gets the values that isopress gets."""

import numpy as np
import pytest

from isopress.codec.bounded import block
from isopress.codec.bounded.pyramid import Quantisation
from isopress.codec.bounded.reference_order import GAPS, KINDS, Axes, order
from isopress.codec.bounded.weights import DEFAULT_FOR_BLOCKS, load_pyramid
from tests.fields import drifting_fields, half_smooth
from tests.spec import block as spec_block
from tests.spec.test_golden_by_spec import tensors_of

PLAIN, SNAP = Quantisation(), Quantisation(snap=True)


def assert_read_alike(y, valid, axes, quantisation, *, periodic=None):
    """Code `y` (..., H, W) as a block and compare what both readers make of it; return section and guesses."""
    fields = y.reshape(-1, *y.shape[-2:])
    ok = None if valid is None else valid.reshape(fields.shape)
    section, v = block.encode(
        fields,
        ok,
        leading=y.shape[:-2],
        axes=axes,
        model=load_pyramid(references=True),
        quantisation=quantisation,
        periodic=periodic,
    )
    found, guesses = spec_block.decode_fields(section, y.shape, tensors_of(DEFAULT_FOR_BLOCKS))
    assert np.array_equal(found, v.reshape(y.shape))
    return section, guesses


CASES = [
    ((6, 7, 9), Axes(0), 30, PLAIN),
    ((5, 6, 8), Axes(0), 300, Quantisation(taper=2)),
    ((9, 4, 5), Axes(0), 5, Quantisation(taper=1)),
    ((3, 9, 12), Axes(0), 3e5, Quantisation(taper=3)),
    ((4, 8, 7), Axes(0), 20, SNAP),
    ((3, 7, 6), Axes(), 20, PLAIN),
    ((4, 3, 5, 6), Axes(0, 1), 60, Quantisation(taper=1)),
    ((4, 3, 5, 6), Axes(1, 0), 60, PLAIN),
    ((5, 5, 3, 4), Axes(1, 0), 60, SNAP),
    ((2, 5, 5, 6), Axes(1), 40, PLAIN),  # two positions of a rank, two fields each: their order matters
    ((2, 3, 2, 5, 4), Axes(0, 2), 40, PLAIN),
    ((2, 2, 3, 5, 4), Axes(2, 1), 40, Quantisation(taper=2)),
]


@pytest.mark.parametrize(("shape", "axes", "size", "quantisation"), CASES)
def test_a_reader_written_from_the_spec_gets_the_same_values(shape, axes, size, quantisation):
    y = drifting_fields(*shape) * size
    assert_read_alike(np.rint(y) if quantisation.snap else y, None, axes, quantisation)


def test_quiet_points_of_fields_with_references_are_read_alike():
    y = np.stack([half_smooth(129, 128) * scale for scale in (1, 1.1)])
    assert_read_alike(y, None, Axes(0), Quantisation(taper=1))


@pytest.mark.parametrize("field", [(1, 1), (1, 11), (9, 1), (2, 2), (1, 2), (2, 1), (2, 5), (5, 2), (3, 3)])
@pytest.mark.parametrize("quantisation", [Quantisation(taper=1), SNAP])
def test_fields_of_few_points_are_read_alike(field, quantisation):
    y = drifting_fields(5, 2, *field) * 50
    assert_read_alike(np.rint(y) if quantisation.snap else y, None, Axes(0, 1), quantisation)


def test_periodic_columns_are_read_alike():
    y = drifting_fields(4, 6, 16) * 30
    (plain, _), (periodic, _) = (assert_read_alike(y, None, Axes(0), PLAIN, periodic=p) for p in (False, True))
    assert plain[1:] != periodic[1:]


@pytest.mark.parametrize("quantisation", [Quantisation(taper=2), SNAP])
def test_points_that_do_not_matter_are_read_alike(quantisation):
    y = drifting_fields(6, 7, 8) * 40
    valid = np.random.default_rng(0).random(y.shape) < 0.7
    valid[2] = False  # a field that others refer to
    assert_read_alike(np.rint(y) if quantisation.snap else y, valid, Axes(0), quantisation)


def test_guesses_with_exponents_and_many_coefficients_are_read_alike():
    wave = drifting_fields(3, 3, 24, 9, slope=1.5)
    scales = np.array([1e4, 300.0, 8.0])[:, None, None, None]
    _, guesses = assert_read_alike(wave * scales, None, Axes(1, 0), PLAIN)
    assert {tuple(guess.coefficients) for guess in guesses.values()} == {(), (*"P",), (*"PQ",), (*"PS",), (*"PQS",)}
    assert any(e for guess in guesses.values() for e in guess.exponents.values())
    assert len({c for guess in guesses.values() for row in guess.coefficients.values() for c in row}) > 10


def test_these_cases_have_fields_of_every_kind_and_gap_class():
    nodes = [node for shape, axes, *_ in CASES for batch in order(shape[:-2], axes) for node in batch]
    assert {node.kind for node in nodes} == set(range(KINDS))
    assert {node.gap for node in nodes} == set(range(GAPS))


@pytest.mark.parametrize("n", [*range(1, 20), 31, 33, 64, 65])
def test_both_readers_visit_an_axis_in_the_same_order_and_refer_to_the_same_fields(n):
    axis = spec_block.Axis(n)
    batches = order((n,), Axes(0))
    assert [[node.field for node in batch] for batch in batches] == axis.ranks
    for node in (node for batch in batches for node in batch):
        known = spec_block.References.of(axis, spec_block.Axis(1), (node.field, 0))
        assert [at for at, _ in known.along] == list(node.along)
        assert [at and at[0] for at in known.beyond] == list(node.beyond)[: len(node.along)]
        assert known.gap == node.gap
        fields = {(p, 0): np.zeros((1, 1), int) for p in axis.gaps}
        assert spec_block.KINDS.index("".join(known.proxies(fields))) == node.kind
