"""References of blocks: every field once, after all it refers to; coefficients of the guess written, fitted, of use."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded import reference_prediction as coefficients
from isopress.codec.bounded.reference_fit import fit
from isopress.codec.bounded.reference_order import KINDS, Axes, Node, bisection, chain, order, slots_of
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.native import dispatch
from isopress.codec.values.quantiser import UNITS
from tests.fields import spectral_field
from tests.strategies import examples

LEADINGS = [(), (1,), (2,), (3,), (24,), (1, 1), (5, 3), (4, 1, 7), (3, 2, 4)]


def axes_of(leading: tuple[int, ...]) -> list[Axes]:
    """Return every choice of axes for references."""
    return [Axes(*axes) for n in range(3) for axes in permutations(range(len(leading)), n)]


CASES = [(leading, axes) for leading in LEADINGS for axes in axes_of(leading)]


def nodes_of(batches: list[list[Node]]) -> list[Node]:
    return [node for batch in batches for node in batch]


@pytest.mark.parametrize(("leading", "axes"), CASES, ids=str)
def test_every_field_comes_once_and_after_all_it_refers_to(leading, axes):
    size, seen = 1, set()
    for n in leading:
        size *= n
    for batch in order(leading, axes):
        for node in batch:
            assert seen.issuperset(node.parents)
        seen.update(node.field for node in batch)
    fields = [node.field for node in nodes_of(order(leading, axes))]
    assert sorted(fields) == list(range(size))


@pytest.mark.parametrize(("leading", "axes"), CASES, ids=str)
def test_the_fields_of_a_batch_are_of_one_kind_and_gap_class(leading, axes):
    for batch in order(leading, axes):
        assert len({(node.kind, node.gap) for node in batch}) == 1


@pytest.mark.parametrize(("leading", "axes"), CASES, ids=str)
def test_a_kind_says_which_proxies_a_field_has(leading, axes):
    for node in nodes_of(order(leading, axes)):
        there = (node.along, len(node.along) == 2, any(f is not None for f in node.beyond), node.across)
        assert slots_of(node.kind) == tuple(slot for slot, proxy in enumerate(there) if proxy)


def test_six_positions_refer_as_the_spec_says():
    nodes = {node.field: node for node in nodes_of(order((6,), Axes(0)))}
    assert list(nodes) == [0, 5, 4, 2, 1, 3]
    assert {p: (n.along, n.beyond, n.gap, n.kind) for p, n in nodes.items()} == {
        0: ((), (None, None), 0, 0),
        5: ((0,), (None, None), 2, 1),
        4: ((0, 5), (None, None), 2, 2),
        2: ((0, 4), (None, 5), 1, 3),
        1: ((0, 2), (None, 4), 0, 3),
        3: ((2, 4), (0, 5), 0, 3),
    }


def test_the_gap_class_is_that_of_the_distance_to_the_references():
    last = {n: bisection(n)[1].gap for n in range(2, 40)}
    assert last == {n: 0 if n - 1 < 2 else 1 if n - 1 < 4 else 2 if n - 1 < 8 else 3 for n in last}
    inner = {(stop.position - stop.references[0], stop.gap) for stop in bisection(40)[2:]}
    assert inner == {(1, 0), (2, 1), (4, 2), (8, 3), (16, 3), (32, 3)}


def test_two_axes_refer_as_the_spec_says():
    """Fields f = 10 p + q of axes (p, q) = (3, 3); their index is 3 p + q."""
    nodes = {node.field: node for node in nodes_of(order((3, 3), Axes(0, 1)))}
    assert list(nodes) == [0, 2, 1, 6, 8, 7, 3, 5, 4]
    found = {f: (n.along, n.across, n.kind) for f, n in nodes.items()}
    assert found == {
        0: ((), (), 0),
        2: ((0,), (), 1),  # at p = 0 along the secondary axis
        1: ((0, 2), (), 2),
        6: ((0,), (), 1),  # q = 0 refers to nothing across
        8: ((2,), ((6, (0,)),), 4),
        7: ((1,), ((6, (0,)), (8, (2,))), 4),
        3: ((0, 6), (), 2),
        5: ((2, 8), ((3, (0, 6)),), 5),
        4: ((1, 7), ((3, (0, 6)), (5, (2, 8))), 5),
    }
    assert {(n.field, n.gap) for n in nodes.values()} == {
        *((f, 1) for f in (2, 6, 7, 8)), *((f, 0) for f in (0, 1, 3, 4, 5))
    }  # fmt: skip


def test_other_axes_are_independent_and_coded_together():
    batches = order((2, 5, 3), Axes(1))
    assert [[node.field for node in batch] for batch in batches] == [
        [at(a, p, c) for p in rank for a in range(2) for c in range(3)] for rank in ([0], [4], [2], [1, 3])
    ]
    for node in nodes_of(batches):
        assert {(f // 15, f % 3) for f in node.parents} <= {(node.field // 15, node.field % 3)}


def at(a: int, p: int, c: int) -> int:
    return (a * 5 + p) * 3 + c


def needed(batches: list[list[Node]], wanted: set[int]) -> set[int]:
    """Return the closure of `wanted` under parents."""
    parents = {node.field: node.parents for node in nodes_of(batches)}
    found: set[int] = set()
    todo = list(wanted)
    while todo:
        field = todo.pop()
        if field not in found:
            found.add(field)
            todo += parents[field]
    return found


@examples(40)
@given(st.sampled_from(CASES), st.data())
def test_a_chain_is_what_the_wanted_fields_need_in_coding_order(case, data):
    batches = order(*case)
    size = len(nodes_of(batches))
    wanted = data.draw(st.sets(st.integers(0, size - 1)))
    found = list(chain(batches, wanted))
    fields = [node.field for node in nodes_of(found)]
    assert set(fields) == needed(batches, wanted)
    assert fields == [node.field for node in nodes_of(batches) if node.field in set(fields)]
    assert all(found)


def longest_chain(leading: tuple[int, ...], axes: Axes) -> int:
    batches = order(leading, axes)
    return max(len(nodes_of(list(chain(batches, {node.field})))) for node in nodes_of(batches))


def test_one_field_of_an_axis_costs_at_most_three_fields_for_each_doubling_of_its_length():
    for n in range(2, 201):
        halvings = (n - 2).bit_length()  # 2**halvings >= n - 1
        assert longest_chain((n,), Axes(0)) <= max(halvings + 2, 3 * halvings - 3), n


def test_one_field_of_two_axes_costs_a_fraction_of_them():
    assert longest_chain((24, 13), Axes(0, 1)) < 24 * 13 / 4
    assert longest_chain((24, 13), Axes(1, 0)) < 24 * 13 / 4
    assert longest_chain((24, 13), Axes(0)) == longest_chain((24,), Axes(0))


MODEL = load_pyramid(references=True)


def through_a_stream(write, read):
    writer = SymbolWriter(peaked=True)
    write(writer)
    reader = SymbolReader(memoryview(writer.finish()), peaked=True)
    result = read(reader)
    reader.finish()
    return result


@pytest.mark.parametrize("which", [0, 1])
def test_the_models_code_every_allowed_exponent_and_difference(which):
    model = coefficients.models()[which]
    count = (61, 509)[which]
    values = through_a_stream(
        lambda writer: [writer.symbol(i, model) for i in range(count)],
        lambda reader: [reader.symbol(model) for _ in range(count)],
    )
    assert values == list(range(count))


@pytest.mark.parametrize("kind", range(KINDS))
def test_coefficients_come_back_and_are_0_for_what_a_kind_lacks(kind):
    rng = np.random.default_rng(kind)
    for _ in range(20):
        exponents = rng.integers(-30, 31, 4).astype(np.int8)
        wanted = rng.choice([-127, -1, 0, 1, 64, 65, 127, *rng.integers(-127, 128, 3)], (3, 4)).astype(np.int8)
        found = through_a_stream(
            lambda writer, e=exponents, c=wanted: coefficients.write_coefficients(writer, kind, e, c),
            lambda reader: coefficients.read_coefficients(reader, kind),
        )
        there = [slot in slots_of(kind) for slot in range(4)]
        np.testing.assert_array_equal(found[0], np.where(there, exponents, 0))
        np.testing.assert_array_equal(found[1], np.where(there, wanted, 0))


def test_coefficients_that_are_as_expected_cost_a_byte_or_two():
    expected = np.tile(np.array(coefficients.PRIOR, np.int8), (3, 1))
    writer = SymbolWriter(peaked=True)
    coefficients.write_coefficients(writer, KINDS - 1, np.zeros(4, np.int8), expected)
    assert len(writer.finish()) <= 1 + 8


ALONG = Node(1, (0,), (None, None), (), 0)
BETWEEN = Node(2, (0, 1), (None, None), (), 0)


def fit_to(nodes, x, decoded):
    """Return exponents and coefficients that suit a field (H, W) in units."""
    return fit(nodes, x[None] / UNITS, coefficients.plain_proxies(nodes, decoded))


def test_a_field_like_its_reference_is_guessed_to_be_its_reference():
    x = np.rint(spectral_field(60, 60, slope=1.5) * 3000)
    decoded = np.stack([x, x]).astype(np.int32)
    exponents, found = fit_to([ALONG], x, decoded)
    assert exponents[0].tolist() == [0, 0, 0, 0]
    assert np.abs(found[0, :, 0] - 64).max() <= 2
    assert not found[0, :, 1:].any()


def test_a_field_between_two_others_is_guessed_to_be_their_weighted_mean():
    a, b = (np.rint(spectral_field(60, 60, slope=1.5, seed=s) * 3000) for s in (0, 1))
    for weight in (0.5, 0.25, 0.9):
        target = (1 - weight) * a + weight * b
        _, found = fit_to([BETWEEN], target, np.stack([a, b, 0 * a]).astype(np.int32))
        assert abs(found[0, 0, 0] - 64) <= 3
        assert abs(found[0, 0, 1] - 64 * (2 * weight - 1)) <= 3  # Q is half the difference


@pytest.mark.parametrize("ratio", [1 / 5000, 1 / 300, 1 / 8, 8, 300, 5000])
def test_an_exponent_brings_a_rescaled_reference_to_the_size_of_its_field(ratio):
    x = spectral_field(60, 60, slope=1.0) * 5e3
    x = x * max(1.0, 1 / ratio)
    reference = np.rint(x * ratio)
    exponents, found = fit_to([ALONG], x, np.stack([reference, reference]).astype(np.int32))
    factor = 2.0 ** exponents[0, 0] * found[0, 0, 0] / 64
    assert factor == pytest.approx(1 / ratio, rel=0.03)
    assert 2**-0.5 <= found[0, 0, 0] / 64 <= 2**0.5 + 0.02


def test_a_reference_that_says_nothing_is_not_used():
    x, other = (np.rint(np.random.default_rng(s).normal(size=(60, 60)) * 3000) for s in (0, 1))
    _, found = fit_to([ALONG], x, np.stack([other, x]).astype(np.int32))
    assert np.abs(found[0, 0, 0]) <= 4


def test_fields_too_small_to_fit_take_what_is_expected():
    x = np.rint(spectral_field(6, 6, slope=1.0) * 3000)
    exponents, found = fit_to([BETWEEN], -x, np.stack([x, x, x]).astype(np.int32))
    assert not exponents.any()
    assert found[0].tolist() == [[64, 0, 0, 0]] * 3


NODES = [
    ALONG,
    BETWEEN,
    Node(9, (0, 1), (2, None), (), 0),
    Node(9, (0, 1), (2, 3), (), 0),
    Node(9, (0,), (None, None), ((4, (5,)),), 0),
    Node(9, (0, 1), (None, 3), ((4, (5, 6)),), 0),
    Node(9, (0, 1), (2, 3), ((4, (5, 6)), (7, (8, 10))), 0),
]
LARGE = 2**28  # the largest magnitude of a decoded value


@pytest.mark.parametrize("node", NODES, ids=range(len(NODES)))
def test_proxies_are_means_differences_and_curvatures_of_decoded_fields_at_every_level(node):
    decoded = np.random.default_rng(0).integers(-LARGE, LARGE, (11, 3, 700)).astype(np.int32)
    decoded[:, 0] >>= 20
    x = decoded.astype(np.float64)
    mean = x[list(node.along)].mean(0)
    expected = {0: mean}
    if len(node.along) > 1:
        expected[1] = (x[node.along[1]] - x[node.along[0]]) / 2
        pairs = [(far, *ends) for far, ends in zip(node.beyond, (node.along, node.along[::-1]), strict=True) if far]
        expected[2] = sum((x[far] - 2 * x[near] + x[other] for far, near, other in pairs), 0 * mean) / max(
            1, len(pairs)
        )
    misses = [x[f] - x[list(of)].mean(0) for f, of in node.across]
    expected[3] = sum(misses, 0 * mean) / max(1, len(misses))
    for slot in slots_of(node.kind):
        for exponent in (0, 1, -3, 30, -30):
            wanted = np.clip(np.rint(expected[slot] * 2.0**exponent), -(2.0**27), 2.0**27)
            for name in dispatch.levels():
                with dispatch.using(name):
                    np.testing.assert_array_equal(coefficients.proxy(node, slot, decoded, exponent), wanted)


@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (7, 6), (33, 7), (48, 50), (97, 20), (203, 111)])
def test_every_level_of_the_kernels_fits_the_same_coefficients(shape):
    rng = np.random.default_rng(shape)
    for node in NODES:
        smooth = rng.normal(size=shape).cumsum(0).cumsum(1)
        noise = rng.normal(size=(11, *shape)) * 10.0 ** rng.integers(0, 7)
        decoded = np.clip(smooth * 10.0 ** rng.integers(-1, 5) + noise, -LARGE, LARGE).astype(np.int32)
        y = np.clip(smooth * 10.0 ** rng.integers(-3, 5) + rng.normal(size=shape), -(2**21), 2**21)[None]
        found = []
        for name in dispatch.levels():
            with dispatch.using(name):
                found.append(np.concatenate([part.ravel() for part in fit_to([node], y[0] * UNITS, decoded)]).tolist())
        assert found == found[:1] * len(found)
