"""Pyramids and blocks decode from the SPEC alone: the second reader gets the values that isopress gets."""

import numpy as np
import pytest
from safetensors.numpy import save

from isopress.codec.bounded import block, fields_alone, pyramid
from isopress.codec.bounded.pyramid import Quantisation
from isopress.codec.bounded.reference_order import GAPS, KINDS, Axes, order
from isopress.codec.bounded.weights import DEFAULT_FOR_BLOCKS, FINEST, load_pyramid, parse_pyramid
from isopress.codec.native import dispatch
from tests.fields import drifting_fields, half_smooth, spectral_field
from tests.spec import block as spec_block
from tests.spec import pyramid as spec_pyramid
from tests.spec.test_spec import tensors_of

NAMES = ("field-0.9", DEFAULT_FOR_BLOCKS)
CASES = [
    ((1, 9, 14), 5, {}),
    ((2, 7, 16), 40, {"periodic": True, "taper": 2}),
    ((1, 12, 12), 0.3, {"taper": 1}),
    ((1, 6, 10), 3e5, {"taper": 3}),
    ((1, 11, 6), 20, {"snap": True}),
    ((1, 1, 23), 9, {}),
    ((1, 19, 1), 9, {}),
    ((3, 2, 2), 9, {}),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "size", "options"), CASES)
def test_a_reader_written_from_the_spec_gets_the_same_values(shape, size, options, name):
    y = np.stack([spectral_field(*shape[1:], slope=1.5, seed=b) for b in range(shape[0])]) * size
    y = np.rint(y) if options.get("snap") else y
    section, v = fields_alone.encode(y, None, model=load_pyramid(name), **options)
    assert np.array_equal(spec_pyramid.decode(section, shape, tensors_of(name)), v)


@pytest.mark.parametrize(("periodic", "snap", "taper"), [(True, False, 2), (False, True, None), (False, False, 0)])
def test_quiet_points_are_read_from_the_spec_alone(periodic, snap, taper, monkeypatch):
    y = half_smooth(130, 136)[None]
    y = np.rint(y) if snap else y
    options = {"model": load_pyramid(), "periodic": periodic, "snap": snap, "taper": taper}
    section, v = fields_alone.encode(y, None, **options)
    assert np.array_equal(spec_pyramid.decode(section, y.shape, tensors_of("field-0.9")), v)
    monkeypatch.setattr(pyramid, "LEAST", y.size)
    with dispatch.using(dispatch.NUMPY):
        assert fields_alone.encode(y, None, **options)[0] != section  # there were quiet points


def test_these_weights_are_of_both_kinds():
    assert [load_pyramid(name).takes_references for name in NAMES] == [False, True]
    assert ["D.kind" in tensors_of(name) for name in NAMES] == [False, True]


@pytest.mark.parametrize("groups", [(), ("fine.",), ("fine.", "middle."), ("middle.",)])
def test_the_finest_levels_may_have_networks_of_their_own(groups):
    tensors = {name: own for name, own in tensors_of(DEFAULT_FOR_BLOCKS).items() if not name.startswith(FINEST)}
    for i, group in enumerate(groups, 3):  # with the biases of a coarse level alone: another network
        for name in [name for name in tensors if name.startswith(("D.", "H.", "V."))]:
            own = tensors[name]
            tensors[group + name] = own[i : i + 1] if name.endswith(".bias") else own
    model, y = parse_pyramid("own", save(tensors)), spectral_field(33, 46, slope=1.5)[None] * 30
    section, v = fields_alone.encode(y, None, model=model)
    assert len({id(networks) for networks in model.networks}) == 1 + len(groups)
    assert np.array_equal(spec_pyramid.decode(section, y.shape, tensors), v)


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


BLOCKS = [
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


@pytest.mark.parametrize(("shape", "axes", "size", "quantisation"), BLOCKS)
def test_a_reader_written_from_the_spec_gets_the_same_blocks(shape, axes, size, quantisation):
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


def test_these_blocks_have_fields_of_every_kind_and_gap_class():
    nodes = [node for shape, axes, *_ in BLOCKS for batch in order(shape[:-2], axes) for node in batch]
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
