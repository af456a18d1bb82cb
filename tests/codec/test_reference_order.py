"""Order and references: every field once, after all it refers to, and few fields for any one of them."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isopress.codec.bounded.reference_order import Axes, Node, bisection, chain, order, slots_of
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
