"""The plain patch VAEformer, the published one and the small one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from isopress.codec.training.vaeformer_channels import ChannelTraining
from isopress.codec.vaeformer.config import CONFIGS, CRA5_268, Linear, spec_of
from isopress.codec.vaeformer.layers import FactorizedPrior
from isopress.codec.vaeformer.model import (
    PatchVAEformer,
    Rates,
    gaussian_bits,
    gaussian_kl,
    nearest_scale,
    stage_one_objective,
    stage_two_objective,
)
from tests.vaeformer_models import TINY, rough, shaken

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def published() -> PatchVAEformer:
    with torch.device("meta"):
        return PatchVAEformer(CRA5_268)


def test_the_published_geometry_has_the_published_number_of_parameters(published: PatchVAEformer) -> None:
    count = sum(p.numel() for p in published.parameters())
    assert count == pytest.approx(404.68e6, rel=1e-3)
    assert count == 404_682_016 - 2 * 256  # of the published prior's three quantiles the medians alone are needed here


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
    # One round of its windows, then a global block; twelve such blocks hold 1.6 GB. Fields of 12 x 24 tokens.
    model = PatchVAEformer(replace(CRA5_268, depth=4)).eval()
    x = torch.randn(1, 268, 121, 240)
    with torch.inference_mode():
        rates = model(x, periodic=True)
    assert rates.x_hat.shape == x.shape
    assert torch.isfinite(rates.x_hat).all()
    assert rates.x_hat.std() > 0
    assert (rates.bits_latent > 0).all()
    assert (rates.bits_hyper > 0).all()


def test_the_small_model_is_small() -> None:
    assert sum(p.numel() for p in PatchVAEformer(CONFIGS["small"]).parameters()) <= 10_000_000


def test_the_model_of_four_channels_is_named_by_its_size() -> None:
    spec = spec_of("small-4")
    assert [name for name, _ in spec.channels] == ["u10", "v10", "t2m", "msl"]
    assert sum(p.numel() for p in PatchVAEformer(spec.config).parameters()) <= 10_000_000
    assert ChannelTraining(**spec.training).measured


@pytest.mark.parametrize("noise", ["variational", "uniform", "mixed", "hard"])
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


def test_hyper_latents_do_not_grow_with_the_tokens_of_their_analysis() -> None:
    model, step = PatchVAEformer(TINY), torch.tensor([0.5])
    latents = torch.randn(1, TINY.latents, 8, 8)
    with torch.inference_mode():
        before = model.hyper_analysis(latents, step)
        for weight in (model.hyper_encoder.patches.conv.weight, model.hyper_encoder.patches.conv.bias):
            weight.mul_(1000)
        assert model.hyper_analysis(latents, step).abs().max() < 10 * before.abs().max()


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


@pytest.mark.parametrize("linear", ["cosine", "wavelet"])
@pytest.mark.parametrize("shape", [(1, 1), (24, 40), (33, 21), (64, 64)])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_linear_path_alone_returns_the_field(linear: Linear, shape: tuple[int, int], periodic: bool) -> None:
    model = PatchVAEformer(replace(TINY, channels=2, latents=32, linear=linear))
    assert model.encoder.skip is not None
    assert model.decoder.skip is not None
    x = torch.randn(3, 2, *shape)
    latents = model.encoder.skip(x, periodic)
    torch.testing.assert_close(model.decoder.skip(latents, shape, periodic), x, atol=1e-5, rtol=1e-4)
    own = model.decoder.skip.channel(latents, 1, shape, periodic)
    torch.testing.assert_close(own, x[:, 1], atol=1e-5, rtol=1e-4)
    if shape == (64, 64):
        torch.testing.assert_close(latents.square().sum(), x.square().sum(), rtol=0.1, atol=0)


def test_smooth_fields_have_few_wavelet_latents() -> None:
    y, x = np.mgrid[:64, :64] / 64
    smooth = torch.from_numpy(np.sin(2 * np.pi * x) * np.cos(np.pi * y)).float()[None, None]
    found = [PatchVAEformer(replace(TINY, linear=path)).encoder.skip for path in ("cosine", "wavelet")]
    counts = [int((path(smooth, True).abs() > 0.05).sum()) for path in found if path is not None]
    assert counts[1] < 0.5 * counts[0]


OTHERS: list[dict[str, Any]] = [
    {"kernel": (4, 2), "stride": (4, 2), "latents": 8},
    {"latents": 12},
    {"kernel": (6, 6), "stride": (6, 6)},
    {"linear": "wavelets"},
]


@pytest.mark.parametrize("changes", OTHERS)
def test_wavelets_of_other_patches_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wavelet"):
        replace(TINY, **{"linear": "wavelet", **changes})


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
        PatchVAEformer(replace(TINY, conditioned=False, scale_neurons=0))(x, step)
    with pytest.raises(ValueError, match="noise"):
        PatchVAEformer(TINY)(x, step, noise="soft")


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        replace(TINY, kernel=(5, 4))
    with pytest.raises(ValueError, match="17 latents"):
        replace(TINY, latents=17)
