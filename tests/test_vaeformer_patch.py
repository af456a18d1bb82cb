"""The transformer blocks on token grids, and the plain patch VAEformer built of them."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isopress.codec.train_pool import Field
from isopress.codec.vaeformer.attention import Axis, DepthwiseConv, TransformerBlock, WindowAttention, window_mask
from isopress.codec.vaeformer.configs import CONFIGS, CRA5_268, PatchConfig
from isopress.codec.vaeformer.patch import (
    PatchVAEformer,
    Rates,
    gaussian_bits,
    gaussian_kl,
    nearest_scale,
    stage_one_objective,
    stage_two_objective,
)
from isopress.codec.vaeformer.patch_layers import FactorizedPrior
from isopress.codec.vaeformer.train_patch import (
    PatchProgress,
    PatchTraining,
    batches,
    ideal_rate,
    keep_patch,
    load_patch,
    train_patch,
)

TINY = PatchConfig(
    kernel=(4, 4), stride=(4, 4), dim=16, heads=2, depth=2, windows=((4, 4),), latents=16,
    hyper_dim=16, hyper_heads=2, hyper_depth=1, hyper_hidden=8, hyper_latents=4, hyper_patch=2,
)  # fmt: skip
GRIDS = [(8, 16), (9, 13), (3, 7), (17, 9), (1, 1), (5, 1), (1, 6), (23, 11)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """Return the module with noise on every parameter, so that nothing is 0 as it is at the start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def rough(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Return a random field with much power at large scales."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None] * shape[0], np.fft.rfftfreq(shape[1]) * shape[1])
    x = np.fft.irfft2(spectrum / (1 + k) ** 1.8, shape)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def fields() -> list[Field]:
    return [Field(f"noise/{i}", rough((48, 80), i)[None, None]) for i in range(4)]


def seen_by(attention: WindowAttention, grid: tuple[int, int], periodic: bool) -> Tensor:
    """Return which tokens each token's output depends on, (h, w, h, w)."""
    x = torch.randn(1, *grid, attention.qkv.in_features, requires_grad=True)
    y = attention(x, periodic)
    seen = [torch.autograd.grad(y[0, i, j].sum(), x, retain_graph=True)[0] for i, j in np.ndindex(*grid)]
    return (torch.stack(seen).abs().amax((1, 4)) > 0).reshape(*grid, *grid)


def is_run(flags: Tensor, wraps: bool) -> bool:
    """Whether the true flags are one stretch, which may go round the end if `wraps`."""
    before = flags.roll(1)
    if not wraps:
        before[0] = False
    starts = int((flags & ~before).sum())
    return starts == 1 or (wraps and bool(flags.all()))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_token_attends_to_one_window_that_crosses_no_edge(
    grid: tuple[int, int], shift: bool, periodic: bool
) -> None:
    window = (4, 5)
    seen = seen_by(WindowAttention(8, 2, window, shift=shift), grid, periodic)
    for i, j in np.ndindex(*grid):
        rows, columns = seen[i, j].any(1), seen[i, j].any(0)
        assert torch.equal(seen[i, j], rows[:, None] & columns)
        assert rows[i]
        assert columns[j]
        assert rows.sum() <= window[0]
        assert columns.sum() <= window[1]
        assert is_run(rows, wraps=False)
        assert is_run(columns, wraps=periodic)


def test_shifted_windows_wrap_around_in_longitude_only_if_it_is_periodic() -> None:
    attention = WindowAttention(8, 2, (4, 4), shift=True)
    assert seen_by(attention, (8, 16), True)[0, 0, :, -1].any()
    assert not seen_by(attention, (8, 16), False)[0, 0, :, -1].any()
    assert not seen_by(attention, (8, 16), True)[0, 0, -1].any()


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_padding_takes_no_part_in_attention(grid: tuple[int, int], shift: bool, periodic: bool) -> None:
    attention = WindowAttention(8, 2, (4, 5), shift=shift)
    x = torch.randn(8).expand(2, *grid, 8)
    y = attention(x, periodic)
    assert y.shape == x.shape
    torch.testing.assert_close(y, y[:1, :1, :1].expand_as(y))


def test_attention_within_a_window_is_that_of_the_window_alone() -> None:
    windowed, x = WindowAttention(8, 2, (4, 4)), torch.randn(2, 8, 12, 8)
    everywhere = WindowAttention(8, 2)
    everywhere.load_state_dict(windowed.state_dict())
    y = windowed(x, False)
    torch.testing.assert_close(y[:, 4:, 4:8], everywhere(x[:, 4:, 4:8], False))
    batch = [windowed(x[i : i + 1], False) for i in range(2)]
    torch.testing.assert_close(y, torch.cat(batch))


def test_windows_even_out_and_need_no_mask_where_they_fit_or_wrap() -> None:
    assert Axis.divide(72, 48, shift=False, periodic=False).size == 36
    assert Axis.divide(13, 8, shift=True, periodic=False).padding == 1
    fits = Axis.divide(16, 4, shift=False, periodic=False)
    assert window_mask(fits, Axis.divide(16, 4, shift=True, periodic=True)) is None
    assert window_mask(fits, Axis.divide(13, 4, shift=True, periodic=True)) is None
    assert window_mask(fits, Axis.divide(16, 4, shift=True, periodic=False)) is not None
    assert window_mask(fits, Axis.divide(13, 4, shift=False, periodic=False)) is not None


def test_a_block_is_equivariant_to_rolls_by_whole_windows_on_a_periodic_grid() -> None:
    block = shaken(TransformerBlock(8, 2, (4, 4), shift=True, depthwise=True))
    x = torch.randn(1, 9, 16, 8)
    rolled = block(x.roll(4, 2), True)
    torch.testing.assert_close(rolled, block(x, True).roll(4, 2))
    assert not torch.allclose(block(x.roll(4, 2), False), block(x, False).roll(4, 2), atol=1e-3)


def test_the_depthwise_convolution_closes_in_longitude_only_if_periodic() -> None:
    conv, x = shaken(DepthwiseConv(4)), torch.randn(1, 5, 6, 4)
    torch.testing.assert_close(conv(x.roll(1, 2), True), conv(x, True).roll(1, 2))
    torch.testing.assert_close(conv(x, True)[:, :, 1:-1], conv(x, False)[:, :, 1:-1])
    changed = torch.cat([x[:, :, :-1], x[:, :, -1:] + 1], 2)
    assert torch.equal(conv(x, False)[:, :, 0], conv(changed, False)[:, :, 0])
    assert not torch.equal(conv(x, True)[:, :, 0], conv(changed, True)[:, :, 0])


def test_a_mask_made_while_inferring_serves_a_training_step() -> None:
    block, x = TransformerBlock(8, 2, (4, 4), shift=True), torch.randn(1, 11, 19, 8)
    window_mask.cache_clear()
    with torch.inference_mode():
        expected = block(x, False)
    y = block(x, False)
    y.sum().backward()
    torch.testing.assert_close(y, expected)


def test_a_block_runs_in_bfloat16() -> None:
    block, x = shaken(TransformerBlock(16, 2, (4, 4), shift=True, depthwise=True)), torch.randn(1, 9, 13, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = block(x, False)
    torch.testing.assert_close(y, block(x, False), atol=0.1, rtol=0.05)


def test_impossible_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        WindowAttention(8, 3)
    with pytest.raises(ValueError, match="window"):
        WindowAttention(8, 2, (0, 4))


@pytest.fixture(scope="module")
def published() -> PatchVAEformer:
    with torch.device("meta"):
        return PatchVAEformer(CRA5_268)


def test_the_published_geometry_has_the_published_number_of_parameters(published: PatchVAEformer) -> None:
    count = sum(p.numel() for p in published.parameters())
    assert count == pytest.approx(404.68e6, rel=1e-3)
    assert count == 404_682_016 - 3 * 256  # the published prior has three quantiles per hyper-latent


def test_the_published_geometry_has_the_published_shapes(published: PatchVAEformer) -> None:
    x = torch.empty(1, 268, 721, 1440, device="meta")
    mean, log_variance = published.analysis(x, periodic=True)
    assert mean.shape == log_variance.shape == (1, 256, 72, 144)
    z = published.hyper_analysis(mean)
    assert z.shape == (1, 256, 18, 36)
    predicted, scale = published.hyper_synthesis(z, shape=(72, 144))
    assert predicted.shape == scale.shape == mean.shape
    assert published.synthesis(mean, shape=(721, 1440), periodic=True).shape == x.shape


def test_the_published_model_sends_a_small_field_through() -> None:
    # All 404.68 M parameters in float32, 1.6 GB; fields of 12 x 24 tokens.
    model = PatchVAEformer(CRA5_268).eval()
    x = torch.randn(1, 268, 121, 240)
    with torch.inference_mode():
        rates = model(x, periodic=True)
    assert rates.x_hat.shape == x.shape
    assert torch.isfinite(rates.x_hat).all()
    assert rates.x_hat.std() > 0
    assert (rates.bits_latent > 0).all()
    assert (rates.bits_hyper > 0).all()


def test_the_small_model_is_small() -> None:
    assert sum(p.numel() for p in PatchVAEformer(CONFIGS["patch-small"]).parameters()) <= 10_000_000


@pytest.mark.parametrize("noise", ["variational", "uniform", "hard"])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (7, 9), (64, 64), (45, 67)])
def test_fields_of_any_sides_come_back_in_their_shape(shape: tuple[int, int], periodic: bool, noise: str) -> None:
    model = shaken(PatchVAEformer(TINY))
    x, step = torch.randn(2, 1, *shape), torch.tensor([0.1, 1.0])
    rates = model(x, step, noise=noise, periodic=periodic)
    assert isinstance(rates, Rates)
    assert rates.x_hat.shape == x.shape
    for value in (rates.bits_latent, rates.bits_hyper, rates.kl):
        assert value.shape == (2,)
        assert (value >= 0).all()
    assert torch.isfinite(rates.x_hat).all()


def test_the_model_is_equivariant_to_rolls_by_whole_windows_of_patches() -> None:
    model, step = shaken(PatchVAEformer(TINY)), torch.tensor([0.5])
    x = torch.from_numpy(rough((33, 64)))[None, None]
    with torch.inference_mode():
        (mean, _), (rolled, _) = (model.analysis(f, step, periodic=True) for f in (x, x.roll(16, 3)))
        torch.testing.assert_close(rolled, mean.roll(4, 3), atol=1e-3, rtol=1e-4)
        y = torch.round(mean)
        latents = y, y.roll(4, 3)
        x_hat, x_rolled = (model.synthesis(v, step, shape=(33, 64), periodic=True) for v in latents)
        torch.testing.assert_close(x_rolled, x_hat.roll(16, 3), atol=1e-3, rtol=1e-4)
        z, z_rolled = (model.hyper_analysis(v, step, periodic=True) for v in latents)
        torch.testing.assert_close(z_rolled, z.roll(2, 3), atol=1e-3, rtol=1e-4)


def test_what_happens_at_one_edge_is_not_seen_at_the_other() -> None:
    model, step = shaken(PatchVAEformer(TINY)), torch.tensor([0.5])
    x = torch.from_numpy(rough((96, 96)))[None, None]

    def change(where: tuple[slice, slice], periodic: bool) -> Tensor:
        """Return how much each token's mean (h, w) changes with the values in `where`."""
        other = x.clone()
        other[0, 0, *where] += 1
        with torch.inference_mode():
            before, after = (model.analysis(f, step, periodic=periodic)[0] for f in (x, other))
        return (before - after).abs().amax((0, 1))

    top, left = np.s_[:4, :], np.s_[:, :4]
    for periodic in (False, True):
        assert change(top, periodic)[0].min() > 0
        assert change(top, periodic)[-4:].max() == 0
    assert change(left, False)[:, -4:].max() == 0
    assert change(left, True)[:, -1].max() > 0


def test_the_linear_path_alone_returns_the_field() -> None:
    model = PatchVAEformer(CONFIGS["patch-small"])
    assert model.encoder.skip is not None
    assert model.decoder.skip is not None
    x = torch.randn(1, 1, 24, 40)
    latents = model.encoder.skip(x, False)
    torch.testing.assert_close(latents.square().sum(), x.square().sum())
    torch.testing.assert_close(model.decoder.skip(latents, (24, 40)), x, atol=1e-5, rtol=1e-4)


def test_every_stage_trains_and_the_last_leaves_the_encoder_alone() -> None:
    model = PatchVAEformer(TINY)
    x, step = torch.randn(2, 1, 32, 32), torch.tensor([0.1, 0.5])

    def parts_with_gradient(loss: Tensor) -> set[str]:
        model.zero_grad()
        loss.backward()
        found = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        return found

    transforms = {"encoder", "decoder", "gain"}
    hyper = {"hyper_encoder", "hyper_decoder", "prior"}
    variational = stage_one_objective(model(x, step, noise="variational"), x, 0.1, step)
    assert parts_with_gradient(variational.mean()) == transforms | {"width"}
    uniform = stage_two_objective(model(x, step, noise="uniform"), x, 8.0, step)
    assert parts_with_gradient(uniform.mean()) == transforms | hyper
    model.freeze_encoder()
    hard = stage_two_objective(model(x, step, noise="hard"), x, 8.0, step)
    assert parts_with_gradient(hard.mean()) == {"decoder", "hyper_decoder", "prior"}


def test_objectives_are_what_they_say() -> None:
    x = torch.zeros(1, 1, 2, 2)
    rates = Rates(torch.tensor([6.0]), torch.tensor([2.0]), torch.tensor([4.0]), torch.full_like(x, 0.5))
    assert stage_one_objective(rates, x, 0.1).item() == pytest.approx(0.25 + 0.1)
    assert stage_two_objective(rates, x, 3.0).item() == pytest.approx(2 + 0.75)
    assert stage_two_objective(rates, x, 3.0, torch.tensor([0.5])).item() == pytest.approx(2 + 3)


def test_gaussian_bits_are_a_distribution_over_the_integers_with_finite_tails() -> None:
    symbols = torch.arange(-2000.0, 2001.0)[:, None].double()
    for scale in (0.11, 1.0, 256.0):
        mass = torch.exp2(-gaussian_bits(symbols, torch.full_like(symbols, scale)))
        assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    far = torch.tensor([[500.0]], requires_grad=True)
    gaussian_bits(far, torch.tensor([[0.11]])).sum().backward()
    assert far.grad is not None
    assert torch.isfinite(far.grad).all()
    assert far.grad.item() > 0


def test_the_factorised_prior_is_a_distribution_over_the_integers_of_each_channel() -> None:
    z = torch.arange(-3000.0, 3001.0)[:, None, None, None]
    one, two = shaken(FactorizedPrior(1)), shaken(FactorizedPrior(2))
    with torch.inference_mode():
        assert torch.exp2(-one.bits(z)).sum().item() == pytest.approx(1, abs=1e-3)
        here, there = z, torch.zeros_like(z)
        both = (two.bits(torch.cat([a, b], 1)) for a, b in ((here, there), (there, here), (there, there)))
        first, second, none = both
        # Channels are independent: masses relative to that of 0 add up to its inverse in each.
        assert torch.exp2(none - first).sum() * torch.exp2(none - second).sum() == pytest.approx(
            torch.exp2(none[0]).item(), rel=1e-3
        )


def test_the_divergence_is_that_of_two_gaussians() -> None:
    mean, log_variance, prior = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(3, 1, 1)
    p, q = (
        torch.distributions.Normal(mean, (log_variance / 2).exp()),
        torch.distributions.Normal(0.0, (prior / 2).exp()),
    )
    expected = torch.distributions.kl_divergence(p, q).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_kl(mean, log_variance, prior), expected)


def test_there_are_64_scales_from_0_11_to_256() -> None:
    scales = nearest_scale(torch.logspace(-1.5, 3, 20000)).unique()
    assert len(scales) == 64
    assert scales[0].item() == pytest.approx(0.11)
    assert scales[-1].item() == pytest.approx(256, rel=1e-4)


def test_a_step_is_required_exactly_by_conditioned_models() -> None:
    x, step = torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(ValueError, match="needs a step"):
        PatchVAEformer(TINY)(x)
    with pytest.raises(ValueError, match="not conditioned"):
        PatchVAEformer(replace(TINY, conditioned=False))(x, step)
    with pytest.raises(ValueError, match="noise"):
        PatchVAEformer(TINY)(x, step, noise="soft")


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        replace(TINY, kernel=(5, 4))
    with pytest.raises(ValueError, match="17 latents"):
        replace(TINY, latents=17)


TRAINING = PatchTraining(config=TINY, crop=32, batch=4, warm_up=5, report_every=1)


@pytest.fixture(scope="module")
def trained() -> PatchVAEformer:
    """The tiny model after some steps of the second stage."""
    torch.manual_seed(0)
    model = PatchVAEformer(TINY)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for x, step in islice(batches(fields(), TRAINING, np.random.default_rng(0)), 150):
        objective = stage_two_objective(model(x, step, noise="uniform"), x, TRAINING.lmbda, step)
        optimizer.zero_grad()
        torch.log(objective + TRAINING.floor).mean().backward()
        optimizer.step()
    return model.eval()


def test_a_little_training_makes_coarser_steps_cheaper_and_worse(trained: PatchVAEformer) -> None:
    x = rough((48, 80), 9)
    rates = [ideal_rate(trained, x, step) for step in (0.05, 0.2, 0.8)]
    bits, errors = zip(*rates, strict=True)
    assert bits[0] > 1.3 * bits[1] > 1.3**2 * bits[2] > 0
    assert 0 < errors[0] < errors[1] < errors[2] < 1
    assert bits[2] < 2 * x.size


def test_training_lowers_the_loss(trained: PatchVAEformer) -> None:
    def loss(model: PatchVAEformer) -> float:
        source = islice(batches(fields(), TRAINING, np.random.default_rng(1)), 5)
        with torch.inference_mode():
            pairs = [stage_two_objective(model(x, s), x, TRAINING.lmbda, s).log().mean() for x, s in source]
        return float(torch.stack(pairs).mean())

    assert loss(trained) < loss(PatchVAEformer(TINY)) - 0.3


def test_the_ideal_rate_knows_units(trained: PatchVAEformer) -> None:
    x = rough((40, 40), 3)
    bits, rmse = ideal_rate(trained, x, 0.2)
    scaled, rmse_scaled = ideal_rate(trained, 250 + 8 * x.astype(np.float64), 0.2)
    assert scaled == pytest.approx(bits, rel=0.01)
    assert rmse_scaled == pytest.approx(8 * rmse, rel=0.01)
    for bad in (np.ones((9, 9), np.float32), np.full((9, 9), np.nan, np.float32)):
        with pytest.raises(ValueError, match="vary"):
            ideal_rate(trained, bad, 0.2)


def test_a_run_resumes_where_it_stopped_and_its_checkpoint_is_the_model(tmp_path: Path) -> None:
    seen: list[PatchProgress] = []
    out = tmp_path / "patch.ckpt"
    train_patch(fields(), 0.005, out, TRAINING, report=lambda p: seen.append(replace(p)))
    first = seen[-1]
    assert first.seconds >= 0.3
    model = train_patch(fields(), first.seconds / 60 + 0.005, out, TRAINING, resume=True, report=seen.append)
    assert seen[-1].batches > first.batches
    assert seen[-1].seconds > first.seconds
    assert len(seen[-1].history) == seen[-1].batches
    x = rough((40, 40))
    assert ideal_rate(load_patch(out), x, 0.2) == ideal_rate(model, x, 0.2)
    keep_patch(model, tmp_path / "kept.safetensors")
    kept = load_patch(tmp_path / "kept.safetensors")
    assert kept.config == model.config
    assert ideal_rate(kept, x, 0.2) == pytest.approx(ideal_rate(model, x, 0.2), rel=0.02)


def test_what_cannot_be_resumed_or_trained_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "patch.ckpt"
    with pytest.raises(FileNotFoundError):
        train_patch(fields(), 0.001, out, TRAINING, resume=True)
    with pytest.raises(ValueError, match="32 x 32"):
        train_patch([Field("flat", np.zeros((1, 1, 64, 64)))], 0.001, out, TRAINING)
    train_patch(fields(), 0.001, out, TRAINING)
    with pytest.raises(ValueError, match="another configuration"):
        train_patch(fields(), 0.002, out, replace(TRAINING, config=replace(TINY, dim=32)), resume=True)


def test_crops_are_standardised_and_small_fields_reflected() -> None:
    source: Iterator[tuple[Tensor, Tensor]] = batches(fields(), replace(TRAINING, crop=64), np.random.default_rng(0))
    x, steps = next(source)
    assert x.shape == (4, 1, 64, 64)
    assert x.dtype == steps.dtype == torch.float32
    assert x.std() == pytest.approx(1, abs=0.5)
    low, high = TRAINING.steps
    assert ((steps >= low * 0.999) & (steps <= high * 1.001)).all()
