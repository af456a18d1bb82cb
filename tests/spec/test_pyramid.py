"""The pyramid decodes from the SPEC alone: the second reader gets the values that isopress gets."""

import numpy as np
import pytest
from safetensors.numpy import save

from isopress.codec import native
from isopress.codec.bounded import fields_alone, pyramid
from isopress.codec.bounded.weights import DEFAULT_FOR_BLOCKS, FINEST, load_pyramid, parse_pyramid
from tests.fields import half_smooth, spectral_field
from tests.spec import pyramid as spec_pyramid
from tests.spec.test_golden_by_spec import tensors_of

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
    with native.using(native.NUMPY):
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
