"""Training: what is trained is what is shipped, checkpoints go on, the command leaves a model card."""

from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isopress.cli.train import train as train_group
from isopress.codec.arrays import Scratch
from isopress.codec.bounded import block, fields_alone
from isopress.codec.bounded.geometry import CONTEXTS
from isopress.codec.bounded.predictor import PROXY_FEATURES
from isopress.codec.bounded.pyramid import Quantisation
from isopress.codec.bounded.reference_order import GAPS, KINDS, PROXIES, Axes, order, slots_of
from isopress.codec.bounded.traversal import depth
from isopress.codec.bounded.weights import load_pyramid, parse_pyramid
from isopress.codec.errors import ArgumentError
from isopress.codec.models.registry import find
from isopress.codec.training.pyramid import TrainConfig, integer_networks, to_bytes, train
from isopress.codec.training.pyramid_finest import FinestConfig
from isopress.codec.training.pyramid_finest import train as train_finest
from isopress.codec.training.pyramid_network import LEVELS, RoundedMLP, build
from isopress.codec.training.pyramid_pool import Crop, Examples, Field, crops, examples
from isopress.codec.training.pyramid_pruning import pruned
from isopress.format.source.training_data import hold_out, load_fields
from tests.fields import drifting_fields, spectral_field

xr = pytest.importorskip("xarray")

FIELDS = [Field(f"wave/{i}", spectral_field(80, 90, slope=2 + i / 2, seed=i)[None, None]) for i in range(3)]
SEQUENCE = Field("sequence/t", drifting_fields(7, 3, 60, 64))
QUICK = TrainConfig(
    minutes=0.02,
    widths=(12, 8),
    batch=512,
    pool_points=8000,
    crop=4000,
    validation_points=8000,
    validate_every=0.1,
)

QUICK_FINEST = FinestConfig(
    minutes=0.005,
    widths=(((12, 8),) * 3, ((16, 8),) * 3),
    batch=512,
    pool_points=6000,
    pruned_on=1000,
    crop=3000,
    validation_points=3000,
    threads=1,
)


def random_networks() -> dict[str, RoundedMLP]:
    torch.manual_seed(1)
    networks = build((12, 8))
    for net in networks.values():
        for p in net.parameters():
            p.data = torch.randn_like(p) * 0.3
    return networks


def test_the_rounded_network_and_the_integer_network_are_the_same_function():
    networks = random_networks()
    (integers,) = integer_networks(networks)
    stored = parse_pyramid("stored", to_bytes(networks)).networks[0]
    rng = np.random.default_rng(0)
    for context in CONTEXTS:
        alone = context.n_features
        for kind in range(KINDS):
            slots = [alone + PROXY_FEATURES * slot + i for slot in slots_of(kind) for i in range(PROXY_FEATURES)]
            there = [*range(alone), *slots]
            x = np.zeros((100, alone + PROXIES * PROXY_FEATURES), np.int8)
            x[:, there] = rng.integers(-127, 128, (100, len(there)))
            inputs = np.vstack([x[:, there].T, np.ones((1, 100))]).astype(np.float32)
            for level, gap in product(range(LEVELS), range(GAPS)):
                columns = [torch.full((100,), i, dtype=torch.int8) for i in (level, kind, gap)]
                with torch.no_grad():
                    y = networks[context.name](torch.from_numpy(x), *columns, True)
                expected = (y * torch.tensor([64.0, 8.0, 1.0])).T.numpy()
                for network in (integers[context.name], stored[context.name]):
                    np.testing.assert_array_equal(network(inputs, level, Scratch(), kind, gap), expected)


def drawn(fields: list[Field], count: int, points: int = 20_000, seed: int = 0) -> list[Crop]:
    return list(islice(crops(fields, np.random.default_rng(seed), points), count))


def test_examples_hold_every_point_but_the_anchors():
    networks = integer_networks(random_networks())
    for crop in drawn([*FIELDS, SEQUENCE], 8):
        found, bits = examples(crop, networks)
        fields = crop.y.shape[0] * crop.y.shape[1]
        anchors = fields * np.prod([-(-n // 2 ** depth(*crop.y.shape[2:])) for n in crop.y.shape[2:]])
        assert sum(len(e) for parts in found.values() for e in parts) == crop.y.size - anchors
        assert bits > 0


def test_examples_of_fields_with_references_have_their_kind_and_only_its_features():
    y = drifting_fields(5, 3, 40, 44) * 20
    found, _ = examples(Crop(y, Axes(0, 1), 0), integer_networks(random_networks()))
    nodes = [node for batch in order((5, 3), Axes(0, 1)) for node in batch]
    kinds = {node.kind for node in nodes}
    for context in CONTEXTS:
        parts = Examples.join(found[context.name])
        assert set(parts.kind.tolist()) == kinds
        assert {*zip(parts.kind.tolist(), parts.gap.tolist(), strict=True)} == {(n.kind, n.gap) for n in nodes}
        for kind in kinds:
            features = parts.features[parts.kind == kind][:, context.n_features :].reshape(-1, PROXIES, PROXY_FEATURES)
            assert [slot for slot in range(PROXIES) if features[:, slot].any()] == list(slots_of(kind))


def test_the_ideal_size_of_a_crop_is_close_to_what_coding_takes():
    y = drifting_fields(5, 3, 60, 64) * 5
    model = load_pyramid(references=True)
    for axes in (Axes(), Axes(0, 1)):
        _, bits = examples(Crop(y, axes, 1), model.networks)
        section, _ = block.encode(
            y.reshape(-1, 60, 64),
            None,
            leading=(5, 3),
            axes=axes,
            model=model,
            quantisation=Quantisation(1),
            periodic=False,
        )
        assert 0.95 * bits / 8 <= len(section) <= 1.1 * bits / 8 + 30 * 15  # what is fixed about a stream


def test_crops_are_pieces_of_one_block_in_steps():
    for crop in drawn([SEQUENCE], 40):
        times, levels, height, width = crop.y.shape
        assert 1 <= times * levels <= 9
        assert times <= 7
        assert levels <= 3
        assert height <= 60
        assert width <= 64
        assert crop.axes in (Axes(0, 1), Axes(1, 0))
        assert 0 <= crop.taper <= 3
        assert np.isfinite(crop.y).all()
    shapes = {crop.y.shape[:2] for crop in drawn([SEQUENCE], 40)}
    assert {(1, 1), (5, 1), (3, 3)} <= shapes


def test_crops_of_fields_with_the_same_seed_are_the_same():
    for one, other in zip(drawn([*FIELDS, SEQUENCE], 5), drawn([*FIELDS, SEQUENCE], 5), strict=True):
        np.testing.assert_array_equal(one.y, other.y)
        assert (one.axes, one.taper) == (other.axes, other.taper)
    assert not np.array_equal(drawn(FIELDS, 1)[0].y, drawn(FIELDS, 1, seed=1)[0].y)


def test_variables_of_one_source_and_shape_may_be_cropped_together_as_if_they_were_levels():
    one_level = [Field(f"source/{i}", drifting_fields(1, 1, 60, 64, seed=9 * i)) for i in range(2)]
    elsewhere = [Field("other/0", one_level[0].values), Field("source/small", one_level[0].values[..., :50, :])]
    assert {crop.y.shape[:2] for crop in drawn(one_level, 40)} == {(1, 1), (1, 2)}
    assert {crop.y.shape[:2] for crop in drawn([one_level[0], *elsewhere], 40)} == {(1, 1)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of a quick training, beside its checkpoint, and its progress."""
    out = tmp_path_factory.mktemp("trained") / "w.safetensors"
    return out, train(FIELDS, FIELDS[:1], out, QUICK)


def test_training_writes_weights_that_code_and_resumes_where_it_stopped(trained):
    out, first = trained
    model = parse_pyramid("w", out.read_bytes())
    assert model.takes_references
    y = FIELDS[0].values[0] * 10
    section, v = fields_alone.encode(y, None, model=model)
    np.testing.assert_array_equal(fields_alone.decode(section, y.shape, model=model), v)
    assert np.abs(y - v / 64).max() <= 0.5
    longer = TrainConfig(**{**QUICK.__dict__, "minutes": first.seconds / 60 + 0.02})
    second = train(FIELDS, FIELDS[:1], out, longer, resume=True)
    assert second.rounds > first.rounds
    assert second.validation[: len(first.validation)] == first.validation


@pytest.mark.parametrize("name", ["field-0.9", "block-0.8"])
def test_the_finest_levels_get_small_networks_and_the_others_stay(tmp_path, name):
    init, out = find(name, "pyramid").path, tmp_path / "w.safetensors"
    first = train_finest([*FIELDS, SEQUENCE], FIELDS[:1], init, out, QUICK_FINEST)
    large, model = parse_pyramid("large", init.read_bytes()), parse_pyramid("w", out.read_bytes())
    assert model.takes_references == large.takes_references
    for context in CONTEXTS:
        fine, middle, coarse = (networks[context.name].layers[0].affine.shape for networks in model.networks)
        assert (fine[:2], middle[:2]) == ((1, 12), (1, 16))
        assert coarse == large.networks[-1][context.name].layers[0].affine.shape
    y = FIELDS[0].values[0] * 10
    section, v = fields_alone.encode(y, None, model=model)
    np.testing.assert_array_equal(fields_alone.decode(section, y.shape, model=model), v)
    assert len(section) < 1.2 * len(fields_alone.encode(y, None, model=large)[0])
    if not large.takes_references:
        longer = replace(QUICK_FINEST, minutes=first.seconds / 60 + 0.005)
        assert train_finest([*FIELDS, SEQUENCE], FIELDS[:1], init, out, longer, resume=True).rounds > first.rounds


def test_pruning_only_what_is_not_needed_changes_nothing():
    large, context = random_networks()["D"], CONTEXTS[0]
    layers = large.linears()
    with torch.no_grad():
        layers[1].weight[:, 3] = 0  # nobody looks at neuron 3
        layers[0].weight[5], layers[0].bias[5] = layers[0].weight[4], layers[0].bias[4]  # 5 is another 4
        for part in (large.level, large.kind, large.gap):
            part[:, 5] = part[:, 4]
    networks = integer_networks(random_networks())
    found = [e for crop in drawn([*FIELDS, SEQUENCE], 4) for e in examples(crop, networks)[0]["D"]]
    data = Examples.join(found).of_level(1)
    small = pruned(large, 1, (10, 8), data)
    x, level, kind, gap = (torch.from_numpy(getattr(data, f)) for f in ("features", "level", "kind", "gap"))
    with torch.no_grad():
        expected, found = large(x, level, kind, gap, True), small(x, level, kind, gap, True)
    assert small.alone == context.n_features
    assert (found - expected).abs().mean() < 0.05 * expected.std()


def test_resuming_without_a_checkpoint_or_with_another_shape_is_refused(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="resume"):
        train(FIELDS, FIELDS, tmp_path / "w.safetensors", QUICK, resume=True)
    other = TrainConfig(**{**QUICK.__dict__, "widths": (16, 8)})
    with pytest.raises(ValueError, match="widths"):
        train(FIELDS, FIELDS, trained[0], other, resume=True)


def dataset(folder, name: str, **variables: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    data = {k: (tuple(f"{k}{i}" for i in range(v.ndim)), v.astype(np.float32)) for k, v in variables.items()}
    xr.Dataset(data).to_netcdf(folder / name)


def test_only_finite_large_measurements_are_loaded(tmp_path):
    good = np.stack([spectral_field(64, 70, seed=s) for s in range(3)])
    holes = good.copy()
    holes[1, 3, 4] = np.nan
    dataset(
        tmp_path / "d",
        "a.nc",
        good=good,
        holes=holes,
        sequence_of_small=good[:, :33],
        small=good[:1, :33],
        tiny=good[:, :30],
        nothing=np.full_like(good, np.nan),
        mask=np.sign(good),
        line=good[0, 0],
    )
    found = {f.name: f.values for f in load_fields(tmp_path / "d")}
    assert {name: values.shape for name, values in found.items()} == {
        "a/good": (3, 1, 64, 70),
        "a/holes": (2, 1, 64, 70),
        "a/sequence_of_small": (3, 1, 33, 70),
    }
    np.testing.assert_array_equal(found["a/good"][:, 0], good.astype("f4"))
    np.testing.assert_array_equal(found["a/holes"][:, 0], good[[0, 2]].astype("f4"))
    with pytest.raises(ArgumentError, match="no NetCDF"):
        load_fields(tmp_path)


def test_the_axis_before_the_field_is_a_level_if_its_name_says_so(tmp_path):
    good = np.stack([[spectral_field(64, 70, seed=3 * t + k) for k in range(3)] for t in range(2)]).astype("f4")
    dims = {"t": ("time", "level", "y", "x"), "u": ("level", "time", "y", "x"), "p": ("plev", "y", "x")}
    data = {name: (d, good if len(d) == 4 else good[0]) for name, d in dims.items()}
    data["u"] = (dims["u"], good.swapaxes(0, 1))
    xr.Dataset(data).to_netcdf(tmp_path / "a.nc")
    found = {f.name: f.values for f in load_fields(tmp_path)}
    np.testing.assert_array_equal(found["a/t"], good)
    np.testing.assert_array_equal(found["a/p"], good[:1])
    np.testing.assert_array_equal(found["a/u"][:, 0], good.swapaxes(0, 1).reshape(6, 64, 70))


def test_every_tenth_variable_is_held_out_whole():
    fields = [Field(f"a/{i:02}", FIELDS[0].values) for i in range(11)]
    learned, held = hold_out([*fields, *fields])
    assert [f.name for f in held] == ["a/00", "a/10", "a/00", "a/10"]
    assert {f.name for f in learned} == {f.name for f in fields} - {"a/00", "a/10"}
    with pytest.raises(ArgumentError, match="--validation"):
        hold_out(fields[:1] * 2)


def test_the_command_trains_and_leaves_a_model_card(tmp_path):
    dataset(tmp_path / "data", "a.nc", t=FIELDS[0].values[0, 0], u=FIELDS[1].values[0, 0])
    out = tmp_path / "mine.safetensors"
    options = ["pyramid", "--data", str(tmp_path / "data"), "--out", str(out)]
    tiny = [*options, "--minutes", "0.01", "--width", "8", "--width", "8", "--pool", "6000"]
    result = CliRunner().invoke(train_group, tiny)
    assert result.exit_code == 0, result.output
    card = out.with_suffix(".md").read_text()
    assert "sha256" in card
    assert "training fields: 1 of 1 variables (a/u)" in card
    assert "validation fields: 1 of 1 variables (a/t)" in card
    again = CliRunner().invoke(train_group, tiny)
    assert again.exit_code == 2
    assert "--resume" in again.output
