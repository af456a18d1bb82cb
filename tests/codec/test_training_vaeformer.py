"""Training of the small model of single fields, and what its kept weights are good for."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from isopress.codec.models.registry import VARIABLE, describe
from isopress.codec.training.field_windows import FieldWindows, NamedWindows
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.vaeformer import keep_patch
from isopress.codec.training.vaeformer_channels import SINGLE_FIELDS, ChannelTask, train
from isopress.codec.vaeformer.channels import ANY, Channels
from isopress.codec.vaeformer.config import ModelSpec
from isopress.codec.vaeformer.integer_scales import IntegerScales, scale_of
from isopress.codec.vaeformer.layers import within_reach
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.section import encode_fields
from isopress.codec.vaeformer.weights import VaeformerModel, load_vaeformer, parse
from tests.vaeformer_models import TINY, fields, rough

pytestmark = pytest.mark.usefixtures("seeded")
TRAINING = replace(
    SINGLE_FIELDS, steps=80, batch=2, crop=(32, 32), warm_up=5, round=40, validate_every=2, validation=8,
    validation_crop=None, step_range=(0.05, 2.0), learning_rate=3e-3, mean=0.02,
)  # fmt: skip
SPEC = ModelSpec(TINY, (ANY,))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny model after some steps."""
    out = tmp_path_factory.mktemp("trained") / "patch.safetensors"
    progress = train(SPEC, FieldWindows(fields()), FieldWindows(fields()[:1]), out, TRAINING)
    (_, before), (_, after) = progress.validation
    assert after < before - 0.02
    return out


def test_a_little_training_makes_coarser_steps_cheaper_and_worse(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(kept.parent))
    model, x = load_vaeformer("patch"), 250 + 8 * rough((48, 80), 9)[None, None].astype(np.float64)
    found = [encode_fields(x, index, model, periodic=False) for index in (-138, -74, -10)]
    sizes = [len(section) for section, _ in found]
    errors = [float((decoder.values() - x).std()) for _, decoder in found]
    assert sizes[0] > 1.3 * sizes[1] > 1.3**2 * sizes[2]
    assert 0 < errors[0] < errors[1] < errors[2] < 8


def test_neurons_at_their_limit_ask_for_nothing_more() -> None:
    scales, step = IntegerScales(TINY), torch.ones(1)
    torch.nn.init.constant_(scales.last.weight, 0.05)
    with torch.no_grad():
        scales.first.weight.zero_()[:, : scales.first.in_features // 2] = 1.0
    for size, heard in ((1.0, True), (100.0, False), (-100.0, False)):
        z = torch.full((1, TINY.hyper_latents, 2, 2), size, requires_grad=True)
        scales(z, step, (8, 8), False).sum().backward()
        assert z.grad is not None
        assert bool((z.grad != 0).any()) == heard, size


def test_windows_of_named_channels_come_from_sources_that_have_them_all() -> None:
    grids = {"a": (48, 80), "b": (40, 64)}
    names = {"a": ("u10", "v10", "t2m", "msl", "tp"), "b": ("10u", "10v", "2t", "prmsl")}
    found = [Field(f"{s}/{n}", rough(grids[s], i)[None, None]) for s in "ab" for i, n in enumerate(names[s])]
    lacking = [Field("c/u10", rough((48, 80))[None, None]), Field("c/t2m", rough((48, 80))[None, None])]
    wanted = ("t2m", "u10", "v10", "msl")
    windows = NamedWindows([*found, *lacking], wanted)
    fields_of = {f.name: f.values[0, 0] for f in found}
    seen = set()
    for seed in range(24):
        x = windows.window(np.random.default_rng(seed), (64, 80))
        assert x.shape == (4, 64, 80)
        # Mirrored along latitude v turns round, along longitude u.
        for source, order in (("a", (2, 0, 1, 3)), ("b", (2, 0, 1, 3))):
            whole = np.stack([fields_of[f"{source}/{names[source][i]}"] for i in order])
            for rows, columns in np.ndindex(2, 2):
                signs = np.array([1, 1 - 2 * columns, 1 - 2 * rows, 1])[:, None, None]
                y = (whole - whole.mean((1, 2), keepdims=True)) / whole.std((1, 2), keepdims=True) * signs
                y = np.pad(y, [(0, 0), (0, max(0, 64 - y.shape[1])), (0, max(0, 80 - y.shape[2]))], mode="reflect")
                y = np.flip(y[:, :, :], [axis for axis, turned in ((1, rows), (2, columns)) if turned])
                heights = range(y.shape[1] - 63)
                if any(np.allclose(x, y[:, top : top + 64], atol=1e-4) for top in heights):
                    seen.add((source, rows, columns))
    assert len(seen) >= 6
    with pytest.raises(ValueError, match="no source has fields t2m, u10, v10, msl"):
        NamedWindows(lacking, wanted)


def test_scales_begin_with_those_of_typical_latents() -> None:
    scales, spread = IntegerScales(TINY), torch.logspace(-3, 1, TINY.latents)[:, None, None]
    scales.start_from(spread * torch.randn(8, TINY.latents, 24, 24))
    few = IntegerScales(TINY)
    few.start_from(torch.ones(2, TINY.latents, 1, 1))  # fewer than a hyper-latent has
    torch.testing.assert_close(few.last.bias, torch.full_like(few.last.bias, few.last.bias[0].item()))
    assert few.last.bias.isfinite().all()
    for step in (0.125, 1.0):
        index = scales(torch.zeros(1, TINY.hyper_latents, 3, 3), torch.tensor([step]), (6, 6), False)
        torch.testing.assert_close(scale_of(index[0]), (spread / step).expand(-1, 6, 6), rtol=0.1, atol=0)


def test_at_first_the_linear_path_is_the_whole_model() -> None:
    model, x, step = PatchVAEformer(TINY), torch.from_numpy(rough((32, 32)))[None, None], torch.tensor([0.1])
    mean, _ = model.analysis(x, step)
    torch.testing.assert_close(model.synthesis(mean, step, shape=(32, 32)), x, rtol=0, atol=1e-4)
    predicted, _ = model.hyper_synthesis(torch.ones(1, TINY.hyper_latents, 4, 4), step, shape=(8, 8))
    assert not predicted.any()


def test_large_hyper_latents_are_bent_and_still_learn() -> None:
    z = torch.tensor([-1e4, -20.0, -16.0, -3.25, 0.0, 15.9, 17.0, 30.0, 1e4], requires_grad=True)
    bent = within_reach(z)
    torch.testing.assert_close(bent[2:6], z[2:6])
    assert (bent.detach().diff() >= 0).all()
    assert float(bent.detach().abs().max()) <= 24
    bent.sum().backward()
    assert z.grad is not None
    assert (z.grad[[1, 6, 7]] > 0.05).all()


def test_networks_are_kept_in_integers_that_decode_nearly_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    model, channels = PatchVAEformer(TINY), Channels((ANY,), np.zeros(1, np.float32), np.ones(1, np.float32))
    x = rough((48, 80), 9)[None, None].astype(np.float64)
    errors, sizes = [], []
    for largest in (0, 127, 20):
        keep_patch(model, tmp_path / f"up-to-{largest}.safetensors", channels, largest=largest)
        loaded = load_vaeformer(f"up-to-{largest}")
        _, decoder = encode_fields(x, -74, loaded, periodic=False)
        errors.append(float((decoder.values() - x).std()))
        sizes.append(len(zlib.compress((tmp_path / f"up-to-{largest}.safetensors").read_bytes())))
        for name, tensor in loaded.network.decoder.state_dict().items():
            most = 2e-3 if largest == 0 else 0.6 / largest * float(tensor.abs().max())
            assert float((tensor - model.decoder.state_dict()[name]).abs().max()) <= most
    assert max(errors) < 1.2 * errors[0]
    assert sizes[0] > sizes[1] > sizes[2]


def test_what_a_file_leaves_out_changes_no_byte(tmp_path: Path) -> None:
    channels = Channels((ANY,), np.zeros(1, np.float32), np.ones(1, np.float32))
    keep_patch(PatchVAEformer(TINY), tmp_path / "some.safetensors", channels, largest=20)
    file, x, sections = describe(tmp_path / "some.safetensors"), rough((48, 80), 9)[None, None].astype(np.float64), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = file.parsed(parse)
        assert isinstance(model, VaeformerModel)
        sections.append(encode_fields(x, -74, model, periodic=False)[0])
    assert sections[0] == sections[1]


@pytest.mark.parametrize("stage", ["uniform", "mixed", "hard"])
def test_every_stage_takes_its_steps(tmp_path: Path, stage: str) -> None:
    parts = {"stage_two": "uniform", "stage_three_from": 0.0} if stage == "hard" else {"stage_two": stage}
    training = replace(TRAINING, steps=2, round=2, **parts)  # type: ignore[arg-type]
    task = ChannelTask(SPEC, FieldWindows(fields()), FieldWindows(fields()[:1]), tmp_path / "a", training, "cpu")
    before = {name: parameter.clone() for name, parameter in task.model.named_parameters()}
    assert np.isfinite(task.round(0, 0.0))
    moved = {name for name, parameter in task.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "decoder.tokens.weight" in moved
    assert ("encoder.head.weight" in moved) == (stage != "hard")


def test_fields_that_nothing_can_be_learned_from_are_refused() -> None:
    with pytest.raises(ValueError, match="32 x 32"):
        FieldWindows([Field("flat", np.zeros((1, 1, 64, 64)))])
    with pytest.raises(ValueError, match="no source has 5"):
        FieldWindows(fields(), 5)


def test_windows_are_standardised_and_small_fields_reflected() -> None:
    same = [Field(f"one/{i}", field.values) for i, field in enumerate(fields())]
    for windows, channels in ((FieldWindows(fields()), 1), (FieldWindows(same, 3), 3)):
        x = np.stack([windows.window(np.random.default_rng(i), (64, 64)) for i in range(8)])
        assert x.shape == (8, channels, 64, 64)
        assert x.dtype == np.float32
        assert x.std() == pytest.approx(1, abs=0.5)
