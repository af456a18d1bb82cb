"""The plain patch VAEformer: tokens of one size, a variational head and a hyperprior, after CRA5.

Han et al., "CRA5: Extreme Compression of ERA5 for Portable Global Climate and Weather Research via an Efficient
Variational Transformer" (arXiv 2405.03376), and its public repository taohan10200/CRA5. The project's own codec has
latents of several scales instead; this model is what it is compared with.

Published, and the same here with the configuration `cra5-268`: patch embedding and its transpose; 12 + 12 blocks, the
last of the analysis doubled, one for the mean and one for the log-variance of the latent; learned positions; windows
of a fixed size, padded with zeros that take part in the attention, and global blocks in turn; a hyperprior of 4 + 4
blocks over 4 x 4 latents; a factorised prior of the hyper-latents, rounded around learned medians, and a mean-scale
Gaussian of the latents with 64 scales from 0.11 to 256, clamped; the two stages of training. All of its 404.68 M
parameters are accounted for, but for two quantiles per hyper-latent that only its training needs. The weights of the
terms of the training objective were not published.

Other configurations have windows that are evened out where they do not divide the grid, and that wrap around in
longitude; an exponential that makes scales positive; hyper-latents rounded to integers.

With `conditioned` (ours; `small`) one set of weights serves all rates: the model is told the quantiser's step,
latents are in units of it, and a linear path beside the transformers, a cosine transform at first, spares them from
learning to copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isopress.codec.vaeformer.config import Pair, PatchConfig
from isopress.codec.vaeformer.layers import (
    BITS,
    PRIOR_SPREAD,
    SCALE_MAX,
    SCALE_MIN,
    SMALL_SPREAD,
    Analysis,
    FactorizedPrior,
    HyperAnalysis,
    HyperSynthesis,
    StepMLP,
    Synthesis,
)

Noise = Literal["variational", "uniform", "mixed", "hard"]

SCALE_COUNT = 64
LOG_SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_COUNT - 1)
LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True)
class Rates:
    """What a batch costs, (B,) each: bits of latents, bits of hyper-latents, KL in nats; its x_hat (B, C, H, W).

    Bits are 0 in the variational stage, which has no entropy model; the KL is 0 in the others.
    """

    bits_latent: Tensor
    bits_hyper: Tensor
    kl: Tensor
    x_hat: Tensor

    @property
    def bits(self) -> Tensor:
        """All bits, (B,)."""
        return self.bits_latent + self.bits_hyper


class PatchVAEformer(nn.Module):
    """Transformer autoencoder on patches with Gaussian latents and a hyperprior.

    Letters: B batch, C channels, H and W the field's sides (latitude, longitude), h and w the token grid's, L latents,
    Z hyper-latents. Fields are expected with zero mean and unit deviation. `step` is the quantiser's step in units of
    that deviation, (B,), for a conditioned model and None for others. `periodic` says whether W closes on itself.
    """

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Analysis(config)
        self.decoder = Synthesis(config)
        self.hyper_encoder = HyperAnalysis(config)
        self.hyper_decoder = HyperSynthesis(config)
        self.prior = FactorizedPrior(
            config.hyper_latents,
            medians=config.published,
            spread=SMALL_SPREAD if config.scale_neurons else PRIOR_SPREAD,
        )
        self.gain = StepMLP(config.latents) if config.conditioned else None
        self.width = nn.Parameter(torch.zeros(config.latents)) if config.conditioned else None  # log, of the KL's prior

    def analysis(self, x: Tensor, step: Tensor | None = None, *, periodic: bool = False) -> tuple[Tensor, Tensor]:
        """Map fields (B, C, H, W) to the mean and log-variance of their latent, (B, L, h, w), in units of the step."""
        gain = self.gain_of(step)
        mean, log_variance = self.encoder(x, step, periodic)
        if gain is not None:
            mean, log_variance = mean * gain, log_variance + 2 * gain.log()
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def synthesis(self, latent: Tensor, step: Tensor | None = None, *, shape: Pair, periodic: bool = False) -> Tensor:
        """Map latents (B, L, h, w) to fields (B, C, H, W) of `shape` (H, W)."""
        gain = self.gain_of(step)
        x_hat: Tensor = self.decoder(latent if gain is None else latent / gain, step, shape, periodic)
        return x_hat

    def hyper_analysis(self, latent: Tensor, step: Tensor | None = None, *, periodic: bool = False) -> Tensor:
        """Map latents (B, L, h, w) to hyper-latents (B, Z, h / 4, w / 4), sides rounded up."""
        z: Tensor = self.hyper_encoder(latent, step, periodic)
        return z

    def hyper_synthesis(
        self, z: Tensor, step: Tensor | None = None, *, shape: Pair, periodic: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Map rounded hyper-latents to mean and scale of latents of `shape` (h, w), each (B, L, h, w)."""
        mean, scale = self.hyper_decoder(z, step, shape, periodic)
        return mean, scale

    def forward(
        self,
        x: Tensor,
        step: Tensor | None = None,
        *,
        noise: Noise = "hard",
        periodic: bool = False,
        seeds: Sequence[int] | None = None,
    ) -> Rates:
        """Send fields (B, C, H, W) through the model.

        Parameters
        ----------
        noise : {"variational", "uniform", "mixed", "hard"}
            What becomes of the latent: a sample of its posterior (stage 1); uniform noise of a step's width, which
            stands for rounding (stage 2); the same for its bits, but rounding for the fields (stage 2 of small
            latents, which rounding makes 0 and noise does not); rounding, passed straight through by gradients, with
            scales from the table (the final phase, and what would be coded).
        seeds : sequence of int, optional
            Of the noise of each field, which is then the same whatever it is batched with.

        Raises
        ------
        ValueError
            `noise` is none of these.
        ValueError
            `step` is given to a model that is not conditioned, or missing.
        """
        if noise not in get_args(Noise):
            raise ValueError(f"noise must be one of {get_args(Noise)}, got {noise!r}")
        shape = x.shape[2], x.shape[3]
        mean, log_variance = self.analysis(x, step, periodic=periodic)
        none = mean.new_zeros(len(x))
        if noise == "variational":
            latent = mean + torch.exp(log_variance / 2) * drawn(torch.randn, mean, seeds)
            kl = gaussian_kl(mean, log_variance, self._prior_log_variance(step))
            return Rates(none, none, kl, self.synthesis(latent, step, shape=shape, periodic=periodic))
        # The hyperprior follows the latents; it does not shape them (as published).
        z = self.hyper_analysis(mean.detach(), step, periodic=periodic)
        rated: Noise = "uniform" if noise == "mixed" else noise
        rounded: Noise = "hard" if noise == "mixed" else noise
        z_hat = self._around_medians(z, rounded, seeds)
        grid = mean.shape[2], mean.shape[3]
        predicted, scale = self.hyper_synthesis(z_hat, step, shape=grid, periodic=periodic)
        scale = scale.clamp_min(SCALE_MIN) if self.config.scale_neurons else scale.clamp(SCALE_MIN, SCALE_MAX)
        if noise == "hard" and not self.config.scale_neurons:
            scale = scale + (nearest_scale(scale) - scale).detach()
        symbols = quantise(mean - predicted, rounded, seeds)
        x_hat = self.synthesis(predicted + symbols, step, shape=shape, periodic=periodic)
        if noise == "mixed":
            symbols, z_hat = quantise(mean - predicted, rated, seeds), self._around_medians(z, rated, seeds)
        return Rates(gaussian_bits(symbols, scale), self.prior.bits(z_hat), none, x_hat)

    def _around_medians(self, z: Tensor, noise: Noise, seeds: Sequence[int] | None) -> Tensor:
        others = None if seeds is None else [seed + 1 for seed in seeds]
        if self.prior.medians is None:
            return quantise(z, noise, others)
        medians = self.prior.medians[:, None, None]
        return quantise(z - medians, noise, others) + medians

    def freeze_encoder(self) -> None:
        """Leave everything before the rounding as it is from now on."""
        for part in (self.encoder, self.hyper_encoder, self.gain):
            if part is not None:
                part.requires_grad_(False)

    def gain_of(self, step: Tensor | None) -> Tensor | None:
        """Return the learned factor of each latent before rounding, (B, L, 1, 1)."""
        if (step is None) == self.config.conditioned:
            raise ValueError(f"this model {'needs a' if self.config.conditioned else 'is not conditioned on any'} step")
        if step is None or self.gain is None:
            return None
        gain: Tensor = self.gain(step)
        return torch.exp(gain).permute(0, 3, 1, 2)

    def _prior_log_variance(self, step: Tensor | None) -> Tensor:
        """Return that of the KL's prior: a standard normal, or widths learned per latent and scaled by the step."""
        gain = self.gain_of(step)
        if step is None or gain is None or self.width is None:
            return torch.zeros(())
        return 2 * (self.width[:, None, None] + torch.log(gain / step[:, None, None, None]))


def gaussian_bits(symbols: Tensor, scale: Tensor) -> Tensor:
    """Return the bits of symbols (B, ...) under Gaussians of these scales, integrated over unit intervals: (B,)."""
    a = symbols.abs()
    upper: Tensor = torch.special.log_ndtr((0.5 - a) / scale)
    lower: Tensor = torch.special.log_ndtr((-0.5 - a) / scale)
    nats = -upper - torch.log(-torch.expm1(lower - upper))
    return nats.flatten(1).sum(1) * BITS


def gaussian_kl(mean: Tensor, log_variance: Tensor, prior_log_variance: Tensor) -> Tensor:
    """Return the divergence in nats of Gaussians (B, ...) from centred ones of the prior variance: (B,)."""
    difference = log_variance - prior_log_variance
    nats = (mean.square() * torch.exp(-prior_log_variance) + torch.exp(difference) - 1 - difference) / 2
    return nats.flatten(1).sum(1)


def nearest_scale(scale: Tensor) -> Tensor:
    """Return the nearest of the 64 tabulated scales, geometric from 0.11 to 256."""
    index = torch.round(torch.log(scale / SCALE_MIN) / LOG_SCALE_STEP).clamp(0, SCALE_COUNT - 1)
    return SCALE_MIN * torch.exp(index * LOG_SCALE_STEP)


def quantise(x: Tensor, noise: Noise, seeds: Sequence[int] | None = None) -> Tensor:
    """Round x with the gradient of the identity ("hard"), or add uniform noise of unit width ("uniform")."""
    if noise == "hard":
        return x + (torch.round(x) - x).detach()
    return x + drawn(torch.rand, x, seeds) - 0.5


def drawn(distribution: Callable[..., Tensor], x: Tensor, seeds: Sequence[int] | None) -> Tensor:
    """Return random numbers of the shape of x (B, ...), of one generator or of one for each entry of B."""
    if seeds is None:
        return distribution(x.shape, dtype=x.dtype, device=x.device)
    each = [torch.Generator(x.device).manual_seed(seed) for seed in seeds]
    return torch.stack([distribution(x.shape[1:], dtype=x.dtype, device=x.device, generator=one) for one in each])


def stage_one_objective(rates: Rates, x: Tensor, beta: float, step: Tensor | None = None) -> Tensor:
    """Return the mean squared error in units of step**2, plus beta times the KL in nats per value: (B,)."""
    return distortion(rates, x, step) + beta * rates.kl / x[0].numel()


def stage_two_objective(rates: Rates, x: Tensor, lmbda: float, step: Tensor | None = None) -> Tensor:
    """Return bits per value, plus lmbda times the mean squared error in units of step**2: (B,).

    Also the objective of the final phase, with `noise="hard"` and the encoder frozen.
    """
    return rates.bits / x[0].numel() + lmbda * distortion(rates, x, step)


def distortion(rates: Rates, x: Tensor, step: Tensor | None) -> Tensor:
    """Return the mean squared error in units of step**2, (B,)."""
    error = (rates.x_hat - x).square().flatten(1).mean(1)
    return error if step is None else error / step.square()
