"""Coefficients of the guess from references: written and read, fitted, of use."""

import numpy as np
import pytest

from isopress.codec import native
from isopress.codec.bounded import reference_prediction as coefficients
from isopress.codec.bounded.reference_fit import fit
from isopress.codec.bounded.reference_order import KINDS, Node, slots_of
from isopress.codec.bounded.weights import load_pyramid
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.values.quantiser import UNITS
from tests.fields import spectral_field

MODEL = load_pyramid(references=True)


def through_a_stream(write, read):
    writer = SymbolWriter(MODEL.tables, peaked=True)
    write(writer)
    reader = SymbolReader(MODEL.tables, memoryview(writer.finish()), peaked=True)
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
    writer = SymbolWriter(MODEL.tables, peaked=True)
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
            for name in native.levels():
                with native.using(name):
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
        for name in native.levels():
            with native.using(name):
                found.append(np.concatenate([part.ravel() for part in fit_to([node], y[0] * UNITS, decoded)]).tolist())
        assert found == found[:1] * len(found)
