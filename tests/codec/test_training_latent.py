"""Training of the latent codec: what is trained is what is stored, and every stage moves what it should."""

from copy import deepcopy
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from isopress.codec.arrays import Scratch
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.decorrelation import identity
from isopress.codec.latent.section import Latent, decode_fields, encode_fields
from isopress.codec.latent.synthesis import CorrectorConfig
from isopress.codec.latent.transforms import Transforms
from isopress.codec.latent.weights import integer_networks, parse_latent
from isopress.codec.training import contexts as train_contexts
from isopress.codec.training import synthesis as train_transforms
from isopress.codec.training.contexts import QUIET, ContextConfig, Trainable
from isopress.codec.training.latent import CONFIGS, VAEformerConfig, train, write
from isopress.codec.training.latent_pool import QUIET_SYMBOLS, crops, pool, quiet_tables
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.synthesis import TransformConfig, code, objective, originals, quantised
from tests.fields import drifting_fields, spectral_field

WIDTHS = (12, 8)
TINY = CorrectorConfig(cell=2, token=8, channels=4, dim=16, heads=2, blocks=2, window=4)
FIELDS = [Field(f"wave/{i}", spectral_field(96, 112, slope=2 + i / 2, seed=i)[None, None]) for i in range(3)]
SEQUENCE = Field("sequence/t", drifting_fields(6, 1, 96, 100))
CONTEXTS = ContextConfig(
    minutes=0.02, widths=WIDTHS, batch=256, pool_points=20_000, crop=9000, validation_points=20_000, threads=1
)
TRANSFORMS = TransformConfig(minutes=0.02, corrector=TINY, crop=(64, 64), batch=2, pool=4, validation=2)


def random_contexts(seed: int = 1) -> Trainable:
    torch.manual_seed(seed)
    what = Trainable.build(WIDTHS)
    for network in what.networks:
        for p in network.parameters():
            p.data = torch.randn_like(p) * 0.2
    return what


def test_the_rounded_network_and_the_integer_networks_are_the_same_function():
    rng = np.random.default_rng(0)
    for trained in random_contexts().networks:
        alone, related = integer_networks(trained.integers())
        x = rng.integers(-127, 128, (200, ALONE + RELATED)).astype(np.int8)
        x[:100, ALONE:] = 0
        for depth in range(DEPTHS):
            with torch.no_grad():
                y = trained(torch.from_numpy(x), torch.full((200,), depth), True)
            expected = (y * torch.tensor([64.0, 8.0, 1.0])).T.numpy()
            inputs = np.vstack([x.T, np.ones((1, 200))]).astype(np.float32)
            np.testing.assert_array_equal(related(inputs, depth, Scratch()), expected)
            without = np.vstack([x[:100, :ALONE].T, np.ones((1, 100))]).astype(np.float32)
            np.testing.assert_array_equal(alone(without, depth, Scratch()), expected[:, :100])


def test_weights_files_hold_what_was_trained_and_can_be_gone_on_with(tmp_path):
    what, transforms = random_contexts(), Transforms(TINY)
    torch.nn.init.normal_(transforms.synthesis.last.weight, std=0.05)
    path = tmp_path / "own.safetensors"
    write(path, what, transforms)
    again = Trainable.restore(load_file(path), WIDTHS)
    for a, b in zip(what.networks, again.networks, strict=True):
        for first, second in zip(a.integers(), b.integers(), strict=True):
            for x, y in zip(first, second, strict=True):
                np.testing.assert_array_equal(x, y)
    model = parse_latent("own", path.read_bytes(), vars(TINY))
    field = spectral_field(40, 48, seed=3)
    section, decoded = encode_fields(field, Latent(0.2, 0.0, True), model)
    np.testing.assert_array_equal(decode_fields(section, field.shape, model), decoded)
    plain = encode_fields(field, Latent(0.2, 0.0, True, corrected=False), model)[1]
    assert np.abs(plain - decoded).max() > 0, "the trained synthesis must be heard"


def test_pools_hold_active_points_and_count_quiet_ones():
    model = random_contexts().model()
    source = crops([*FIELDS, SEQUENCE], np.random.default_rng(0), 9000)
    found = pool(source, model, 40_000, threads=1, trade=0.12)
    assert found.quiet.shape == (BANDS, DEPTHS, QUIET, QUIET_SYMBOLS)
    assert found.quiet.sum() > 0
    for examples in found.examples:
        assert len(examples) > 1000
        assert examples.features.shape == (len(examples), ALONE + RELATED)
        assert examples.rough.min() >= QUIET
        assert (examples.weight > 0).all()
    assert any(e.features[:, ALONE:].any() for e in found.examples), "channels of blocks see those before them"


def test_quiet_tables_follow_the_counts():
    model = random_contexts().model()
    rare = np.zeros((BANDS, DEPTHS, QUIET, QUIET_SYMBOLS))
    rare[..., 0] = 1e6
    often = rare.copy()
    often[..., 1] = 3e5
    assert (quiet_tables(rare, model)[:, :, 0] < quiet_tables(often, model)[:, :, 0]).all()


def test_contexts_learn_from_their_examples():
    torch.manual_seed(0)
    what = Trainable.build(WIDTHS)
    held = list(islice(crops(FIELDS, np.random.default_rng(1), 9000), 6))
    quick = replace(CONTEXTS, learning_rate=3e-3, epochs_per_pool=0.2)
    before = pool(iter(held), what.model(), 10**9, 1, 0.12)
    for network, examples in zip(what.networks, before.examples, strict=True):
        optimizer, kept = torch.optim.AdamW(network.parameters()), deepcopy(network)
        for rounds in range(6):
            train_contexts._descend(network, kept, optimizer, examples, 0.0, rounds, quick)
    after = pool(iter(held), what.model(), 10**9, 1, 0.12)
    assert after.cost < before.cost - 0.2, "an eighth of the size at least"


def test_training_of_contexts_goes_on_from_a_checkpoint(tmp_path):
    checkpoint = tmp_path / "contexts.ckpt"
    _, progress = train_contexts.train(FIELDS, FIELDS[:1], checkpoint, CONTEXTS)
    longer = replace(CONTEXTS, minutes=progress.seconds / 60 + 0.01)
    _, later = train_contexts.train(FIELDS, FIELDS[:1], checkpoint, longer, resume=True)
    assert later.rounds > progress.rounds
    assert later.validation[: len(progress.validation)] == progress.validation


def examples_of(transforms: Transforms) -> list[train_transforms.Example]:
    source = originals(FIELDS, np.random.default_rng(0), (64, 64), blocks=0)
    model = random_contexts().model()
    return [code(x, x, spread, model, 0.12, analysis=True) for x, spread in islice(source, 2)]


@pytest.mark.parametrize("phase", ["variational", "rounded", "frozen"])
def test_every_phase_moves_what_it_should(phase):
    transforms = Transforms(TINY)
    for corrector in (transforms.analysis, transforms.synthesis):
        torch.nn.init.normal_(corrector.last.weight, std=0.05)
    loss = objective(transforms, examples_of(transforms), phase)
    loss.backward()
    assert torch.isfinite(loss)
    moved = {name.split(".")[0] for name, p in transforms.named_parameters() if p.grad is not None and p.grad.any()}
    expected = {"variational": {"analysis", "synthesis", "log_variance"}, "rounded": {"analysis", "synthesis"}}
    assert moved == expected.get(phase, {"synthesis"})


def test_an_example_keeps_what_was_decoded_and_what_contexts_said():
    transforms = Transforms(TINY)
    for example in examples_of(transforms):
        assert example.bits > 0
        assert np.abs(example.x - example.decoded).mean() < 1
        for level in example.priors:
            for mean, scale in level:
                assert np.isfinite(mean).all()
                assert (scale >= train_transforms.LEAST_SCALE).all()


@pytest.mark.parametrize("analysis", [False, True])
def test_all_stages_leave_weights_that_code_fields(tmp_path, monkeypatch, analysis):
    monkeypatch.setattr("isopress.codec.training.latent.ContextConfig", lambda minutes, *_, **__: CONTEXTS)
    monkeypatch.setattr("isopress.codec.training.latent.TransformConfig", lambda *_, **__: TRANSFORMS)
    out, seen = tmp_path / "own.safetensors", []
    config = VAEformerConfig(minutes=0.06, analysis=analysis, corrector=TINY, widths=WIDTHS, threads=1)
    assert sum(config.parts) == pytest.approx(1)
    progress = train(FIELDS, FIELDS[:1], out, config, report=lambda p: seen.append(p.seconds))
    assert seen == sorted(seen)
    assert len(progress.validation) >= (6 if analysis else 4), "each stage begins and ends with one"
    model = parse_latent("own", out.read_bytes(), vars(TINY))
    assert not model.transforms.synthesis.is_zero
    assert model.transforms.analysis.is_zero != analysis
    fields = drifting_fields(3, 40, 48)
    section, decoded = encode_fields(fields, Latent(0.1, 0.0, True), model, mixings=(identity(3),))
    np.testing.assert_array_equal(decode_fields(section, fields.shape, model), decoded)
    assert np.abs(decoded - fields).max() < 1
    tuned = train(FIELDS, FIELDS[:1], tmp_path / "tuned.safetensors", config, init=out)
    assert tuned.validation[0][1] != progress.validation[0][1], "fine-tuning begins where the weights are"


def test_the_configs_build_and_small_is_small():
    built = {name: Transforms(config.corrector) for name, config in CONFIGS.items()}
    sizes = {name: sum(p.numel() for p in transforms.parameters()) for name, transforms in built.items()}
    contexts = sum(p.numel() for n in Trainable.build(CONFIGS["small"].widths).networks for p in n.parameters())
    assert sizes["small"] + contexts <= 10e6
    assert sizes["base"] > 5 * sizes["small"]


def test_soft_steps_are_the_encoders_choices_and_move_only_near_its_thresholds():
    y = torch.linspace(-6.3, 6.3, 2000).requires_grad_()
    for scale in (0.06, 0.3, 1.0, 4.0):
        symbols, bits = quantised(y, torch.full((2000,), scale), 0.12)
        rounded = symbols.detach().round()
        np.testing.assert_allclose(symbols.detach(), rounded, atol=1e-5)
        assert ((rounded - y.detach()).abs() < 2.3).all()
        assert ((rounded.abs() - y.detach().abs()) < 0.51).all(), "never larger than plain rounding makes it"
        (moved,) = torch.autograd.grad(symbols.sum(), y, retain_graph=True)
        assert moved[(y.abs() < 0.1) & (y != 0)].abs().max() < 0.3
        (dearer,) = torch.autograd.grad(bits.sum(), y)
        assert (dearer * torch.sign(y.detach()) >= 0).all(), "what is larger never costs less"
        assert (bits.detach() >= 0).all()
