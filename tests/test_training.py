"""Training: what is trained is what is shipped, checkpoints go on, the command leaves a model card."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from isopress.cli.train import train as train_group
from isopress.codec import pyramid
from isopress.codec.contexts import CONTEXTS
from isopress.codec.errors import ArgumentError
from isopress.codec.pyramid_net import PyramidConfig, RoundedMLP, build
from isopress.codec.scratch import Scratch
from isopress.codec.train_pool import Field, crops, examples
from isopress.codec.train_pyramid import TrainConfig, integer_networks, train
from isopress.codec.weights import parse_pyramid
from isopress.format.training_data import load_fields
from tests.fields import spectral_field

xr = pytest.importorskip("xarray")

FIELDS = [Field(f"wave{i}", spectral_field(80, 90, slope=2 + i / 2, seed=i)) for i in range(3)]
QUICK = TrainConfig(
    minutes=0.02,
    widths=(12, 8),
    batch=512,
    pool_points=20_000,
    crop=64,
    validation_points=20_000,
    validate_every=0.1,
)


def random_networks() -> dict[str, RoundedMLP]:
    torch.manual_seed(1)
    networks = build(PyramidConfig((12, 8)))
    for net in networks.values():
        for p in net.parameters():
            p.data = torch.randn_like(p) * 0.3
    return networks


def test_the_rounded_network_and_the_integer_network_are_the_same_function():
    networks = random_networks()
    integers = integer_networks(networks)
    rng = np.random.default_rng(0)
    for context in CONTEXTS:
        x = rng.integers(-127, 128, (300, context.n_features)).astype(np.int8)
        inputs = np.vstack([x.T, np.ones((1, 300))]).astype(np.float32)
        for level in range(6):
            with torch.no_grad():
                y = networks[context.name](torch.from_numpy(x), torch.full((300,), level, dtype=torch.int8), True)
            expected = (y * torch.tensor([64.0, 8.0, 1.0])).T.numpy()
            np.testing.assert_array_equal(integers[context.name](inputs, level, Scratch()), expected)


def test_examples_hold_every_point_but_the_anchors():
    crop = next(crops(FIELDS, np.random.default_rng(0), 64))
    found, bits = examples(crop, integer_networks(random_networks()))
    assert sum(len(e) for parts in found.values() for e in parts) == crop.y.size - 4
    assert bits > 0


def test_training_writes_weights_that_code_and_resumes_where_it_stopped(tmp_path):
    out = tmp_path / "w.safetensors"
    first = train(FIELDS, FIELDS[:1], out, QUICK)
    model = parse_pyramid("w", out.read_bytes())
    y = FIELDS[0].values[None] * 10
    section, v = pyramid.encode(y, None, model=model)
    np.testing.assert_array_equal(pyramid.decode(section, y.shape, model=model), v)
    assert np.abs(y - v / 64).max() <= 0.5
    longer = TrainConfig(**{**QUICK.__dict__, "minutes": first.seconds / 60 + 0.02})
    second = train(FIELDS, FIELDS[:1], out, longer, resume=True)
    assert second.rounds > first.rounds
    assert second.validation[: len(first.validation)] == first.validation


def test_resuming_without_a_checkpoint_or_with_another_shape_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="resume"):
        train(FIELDS, FIELDS, tmp_path / "w.safetensors", QUICK, resume=True)
    train(FIELDS, FIELDS[:1], tmp_path / "w.safetensors", QUICK)
    other = TrainConfig(**{**QUICK.__dict__, "widths": (16, 8)})
    with pytest.raises(ValueError, match="widths"):
        train(FIELDS, FIELDS, tmp_path / "w.safetensors", other, resume=True)


def dataset(folder, name: str, **variables: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    data = {k: (tuple(f"{k}{i}" for i in range(v.ndim)), v.astype(np.float32)) for k, v in variables.items()}
    xr.Dataset(data).to_netcdf(folder / name)


def test_only_finite_large_measurements_are_loaded(tmp_path):
    good = np.stack([spectral_field(64, 70, seed=s) for s in range(3)])
    holes = good[:1].copy()
    holes[0, 3, 4] = np.nan
    dataset(
        tmp_path / "d",
        "a.nc",
        good=good,
        holes=holes,
        small=good[:, :30],
        mask=np.sign(good),
        line=good[0, 0],
    )
    found = load_fields(tmp_path / "d", at_most=2)
    assert {f.name for f in found} == {"a/good"}
    assert len(found) == 2
    with pytest.raises(ArgumentError, match="no NetCDF"):
        load_fields(tmp_path)


def test_the_command_trains_and_leaves_a_model_card(tmp_path):
    dataset(tmp_path / "data", "a.nc", t=FIELDS[0].values, u=FIELDS[1].values)
    out = tmp_path / "mine.safetensors"
    options = ["pyramid", "--data", str(tmp_path / "data"), "--out", str(out)]
    tiny = [*options, "--minutes", "0.01", "--width", "8", "--width", "8", "--pool", "20000"]
    result = CliRunner().invoke(train_group, tiny)
    assert result.exit_code == 0, result.output
    card = out.with_suffix(".md").read_text()
    assert "sha256" in card
    assert "training fields: 1 of 1 variables (a/u)" in card
    assert "validation fields: 1 of 1 variables (a/t)" in card
    again = CliRunner().invoke(train_group, tiny)
    assert again.exit_code == 2
    assert "--resume" in again.output
