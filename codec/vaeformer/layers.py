"""The parts of the plain patch VAEformer: embeddings, analysis, synthesis, hyperprior and factorised prior.

`model.py` says what of them is published and what is not.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.latent.attention import EPSILON, AbsolutePosition, TransformerBlock
from isopress.codec.vaeformer.config import Pair, PatchConfig
from isopress.codec.vaeformer.integer_scales import IntegerScales, scale_of
from isopress.codec.vaeformer.linear_path import FromWavelet, ToWavelet, continued, set_cosines

SCALE_MIN, SCALE_MAX = 0.11, 256.0  # of latents
LOG_STEP_UNIT = 4.0  # logarithms of steps are divided by it before networks see them
PRIOR_WIDTHS = (1, 3, 3, 3, 3, 1)  # of the factorised prior's monotonic networks
PRIOR_SPREAD = 10.0  # of hyper-latents at the start
HYPER_USUAL = 16.0  # hyper-latents that are larger are bent, to at most half as much more
SMALL_SPREAD = 0.5  # where nothing depends on them at first: else it takes long to learn that they may cost little
BITS = 1 / math.log(2)


class StepMLP(nn.Module):
    """Vector as a function of the step, (B,) to (B, 1, 1, out); 0 at the start."""

    def __init__(self, out: int, hidden: int = 64) -> None:
        super().__init__()
        last = nn.Linear(hidden, out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(1, hidden), nn.GELU(), last)

    def forward(self, step: Tensor) -> Tensor:
        y: Tensor = self.layers(torch.log(step)[:, None] / LOG_STEP_UNIT)
        return y[:, None, None]


class ToTokens(nn.Module):
    """Patches of fields to tokens, (B, C, H, W) to (B, h, w, D); fields of any sides are continued to whole patches."""

    def __init__(self, channels: int, dim: int, kernel: Pair, stride: Pair, *, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, kernel, stride, bias=bias)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        h, w = (token_count(n, k, s) for n, k, s in zip(x.shape[2:], self.kernel, self.stride, strict=True))
        (kh, kw), (sh, sw) = self.kernel, self.stride
        tokens: Tensor = self.conv(continued(x, ((h - 1) * sh + kh, (w - 1) * sw + kw), periodic))
        return tokens.permute(0, 2, 3, 1)


class FromTokens(nn.Module):
    """Tokens to fields, (B, h, w, D) to (B, C, H, W), cropped to `shape`; overlapping patches add up.

    Whether they are `periodic` is the same to them.
    """

    def __init__(self, dim: int, channels: int, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(dim, channels, kernel, stride, bias=False)

    def forward(self, tokens: Tensor, shape: Pair, periodic: bool = False) -> Tensor:
        x: Tensor = self.conv(tokens.permute(0, 3, 1, 2))
        return x[:, :, : shape[0], : shape[1]]

    def channel(self, tokens: Tensor, channel: int, shape: Pair, periodic: bool = False) -> Tensor:
        """Return one channel (B, H, W) of what `forward` returns, at the cost of one."""
        weight = self.conv.weight[:, channel : channel + 1]
        x = F.conv_transpose2d(tokens.permute(0, 3, 1, 2), weight, stride=self.conv.stride)
        return x[:, 0, : shape[0], : shape[1]]


class Embedding(nn.Module):
    """Adds to tokens what they cannot know by themselves: their position and the step, as far as the model has them."""

    def __init__(self, dim: int, positions: Pair | None, conditioned: bool) -> None:
        super().__init__()
        self.position = AbsolutePosition(dim, positions) if positions else None
        self.step = StepMLP(dim) if conditioned else None

    def forward(self, tokens: Tensor, step: Tensor | None) -> Tensor:
        if self.position is not None:
            tokens = self.position(tokens)
        if self.step is not None and step is not None:
            tokens = tokens + self.step(step)
        return tokens


class Analysis(nn.Module):
    """Fields to mean and log-variance of latents in units of the step; the last block is doubled, one for each."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.patches = ToTokens(config.channels, config.dim, config.kernel, config.stride)
        self.embedding = Embedding(config.dim, config.positions, config.conditioned)
        self.blocks = nn.ModuleList(_block(config, i) for i in range(config.depth))
        self.variance_block = _block(config, config.depth - 1)
        self.head = nn.Linear(2 * config.dim, 2 * config.latents)
        self.skip = _to_latents(config) if config.conditioned else None
        if self.skip is not None:
            _silence(self.head, config.latents)

    def forward(self, x: Tensor, step: Tensor | None, periodic: bool) -> tuple[Tensor, Tensor]:
        t = self.embedding(self.patches(x, periodic), step)  # (B, h, w, D)
        *blocks, mean_block = self.blocks
        for block in blocks:
            t = block(t, periodic)
        both = torch.cat([mean_block(t, periodic), self.variance_block(t, periodic)], 3)
        mean, log_variance = self.head(both).chunk(2, 3)  # (B, h, w, L)
        if self.skip is not None and step is not None:
            mean = mean + self.skip(x, periodic) / step[:, None, None, None]
        return mean.permute(0, 3, 1, 2), log_variance.permute(0, 3, 1, 2)


class Synthesis(nn.Module):
    """Latents in units of the step to fields."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        self.tokens = nn.Linear(config.latents, config.dim)
        self.embedding = Embedding(config.dim, None, config.conditioned)
        self.blocks = nn.ModuleList(_block(config, config.depth + i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=EPSILON)
        self.fields = FromTokens(config.dim, config.channels, config.kernel, config.stride)
        self.skip = _from_latents(config) if config.conditioned else None
        if self.skip is not None:
            _silence(self.fields.conv)

    def forward(self, latent: Tensor, step: Tensor | None, shape: Pair, periodic: bool) -> Tensor:
        x: Tensor = self.fields(self.last_tokens(latent, step, periodic), shape)
        if self.skip is not None and step is not None:
            x = (x + self.skip(latent.permute(0, 2, 3, 1), shape, periodic)) * step[:, None, None, None]
        return x

    def last_tokens(self, latent: Tensor, step: Tensor | None, periodic: bool) -> Tensor:
        """Return the tokens (B, h, w, D) that every channel is made of."""
        y = latent.permute(0, 2, 3, 1)  # (B, h, w, L)
        t = self.embedding(self.tokens(y if self.skip is None else torch.asinh(y)), step)
        for block in self.blocks:
            t = block(t, periodic)
        normed: Tensor = self.norm(t)
        return normed

    def channel(
        self, tokens: Tensor, latent: Tensor, step: Tensor | None, channel: int, shape: Pair, periodic: bool
    ) -> Tensor:
        """Return one channel (B, H, W) of what `forward` returns, made of its last tokens."""
        x = self.fields.channel(tokens, channel, shape)
        if self.skip is not None and step is not None:
            x = (x + self.skip.channel(latent.permute(0, 2, 3, 1), channel, shape, periodic)) * step[:, None, None]
        return x


class HyperAnalysis(nn.Module):
    """Latents to hyper-latents, by global attention over patches of latents."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        patch, dim = (config.hyper_patch, config.hyper_patch), config.hyper_dim
        self.logarithmic = config.conditioned
        self.patches = ToTokens(config.latents, dim, patch, patch)
        self.embedding = Embedding(dim, _hyper_positions(config), config.conditioned)
        self.blocks = nn.ModuleList(_hyper_block(config, i) for i in range(config.hyper_depth))
        self.head = _mlp(dim, config.hyper_hidden, config.hyper_latents)
        if config.scale_neurons:
            with torch.no_grad():
                self.head.get_parameter("2.weight").mul_(4)  # else all are rounded to 0 at first

    def forward(self, latent: Tensor, step: Tensor | None, periodic: bool) -> Tensor:
        # In units of a small step latents reach hundreds.
        y = torch.asinh(latent) if self.logarithmic else latent
        t = self.embedding(self.patches(y, periodic), step)
        for block in self.blocks:
            t = block(t, periodic)
        if self.logarithmic:
            # Without it tokens grow in long trainings, until the limits of hyper-latents are all that holds them.
            t = F.layer_norm(t, t.shape[-1:], eps=EPSILON)
        z: Tensor = self.head(t)
        return (within_reach(z) if self.logarithmic else z).permute(0, 3, 1, 2)


class HyperSynthesis(nn.Module):
    """Hyper-latents to means and scales of latents."""

    def __init__(self, config: PatchConfig) -> None:
        super().__init__()
        patch, dim = (config.hyper_patch, config.hyper_patch), config.hyper_dim
        self.published = config.published
        self.tokens = _mlp(config.hyper_latents, config.hyper_hidden, dim)
        self.embedding = Embedding(dim, None, config.conditioned)
        self.blocks = nn.ModuleList(_hyper_block(config, config.hyper_depth + i) for i in range(config.hyper_depth))
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        self.integer = IntegerScales(config) if config.scale_neurons else None
        self.latents = FromTokens(dim, (1 if config.scale_neurons else 2) * config.latents, patch, patch)
        if config.scale_neurons:
            _silence(self.latents.conv)

    def forward(self, z: Tensor, step: Tensor | None, shape: Pair, periodic: bool) -> tuple[Tensor, Tensor]:
        if self.integer is not None and step is not None:
            scale = scale_of(self.integer(z, step, shape, periodic))
            return self.means(z, step, scale, periodic), scale
        t = self.embedding(self.tokens(z.permute(0, 2, 3, 1)), step)
        for block in self.blocks:
            t = block(t, periodic)
        log_scale, mean = self.latents(self.norm(t), shape).chunk(2, 1)
        if self.published:
            return mean, log_scale  # not a logarithm there
        if step is not None:
            # Scales start as the field's deviation and means count in scales: both are alike for all steps.
            log_scale = log_scale - torch.log(step)[:, None, None, None]
        scale = torch.exp(log_scale.clamp(math.log(SCALE_MIN), math.log(SCALE_MAX)))
        return mean if step is None else mean * scale, scale

    def means(self, z: Tensor, step: Tensor, scale: Tensor, periodic: bool) -> Tensor:
        """Return the means of latents whose scales (B, L, h, w) are known: they count in scales."""
        t = self.embedding(self.tokens(z.permute(0, 2, 3, 1)), step)
        for block in self.blocks:
            t = block(t, periodic)
        mean: Tensor = self.latents(self.norm(t), (scale.shape[2], scale.shape[3]))
        return mean * scale.detach().clamp(SCALE_MIN, SCALE_MAX)


class FactorizedPrior(nn.Module):
    """Learned density of each hyper-latent channel: a monotonic network is its cumulative distribution.

    Ballé et al., "Variational image compression with a scale hyperprior" (arXiv 1802.01436), section 6.1.
    """

    def __init__(self, channels: int, *, medians: bool = False, spread: float = PRIOR_SPREAD) -> None:
        super().__init__()
        self.medians = nn.Parameter(torch.zeros(channels)) if medians else None
        self.matrices, self.biases, self.factors = (nn.ParameterList() for _ in range(3))
        spread = spread ** (1 / (len(PRIOR_WIDTHS) - 1))
        for a, b in pairwise(PRIOR_WIDTHS):
            # softplus of this makes every layer divide by `spread`
            self.matrices.append(nn.Parameter(torch.full((channels, b, a), math.log(math.expm1(1 / spread / b)))))
            self.biases.append(nn.Parameter(torch.rand(channels, b, 1) - 0.5))
        for width in PRIOR_WIDTHS[1:-1]:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))

    def bits(self, z: Tensor) -> Tensor:
        """Return the bits of the unit intervals around hyper-latents (B, Z, h, w), summed to (B,)."""
        values = z.transpose(0, 1).reshape(z.shape[1], 1, -1)  # (Z, 1, B * h * w)
        nats = -log_interval(self._logits(values + 0.5), self._logits(values - 0.5))
        return nats.reshape(z.shape[1], z.shape[0], -1).sum((0, 2)) * BITS

    def _logits(self, x: Tensor) -> Tensor:
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if i < len(self.factors):
                x = x + torch.tanh(self.factors[i]) * torch.tanh(x)
        return x


def log_interval(upper: Tensor, lower: Tensor) -> Tensor:
    """Return log(sigmoid(upper) - sigmoid(lower)), stable far out in both tails."""
    # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u))
    mass: Tensor = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
    return mass


def token_count(n: int, kernel: int, stride: int) -> int:
    """Return how many patches cover n grid cells."""
    return 1 + max(0, -(-(n - kernel) // stride))


def _to_latents(config: PatchConfig) -> ToTokens | ToWavelet:
    if config.linear == "wavelet":
        return ToWavelet(config.kernel)
    path = ToTokens(config.channels, config.latents, config.kernel, config.stride, bias=False)
    set_cosines(path.conv.weight)
    return path


def _from_latents(config: PatchConfig) -> FromTokens | FromWavelet:
    if config.linear == "wavelet":
        return FromWavelet(config.kernel)
    path = FromTokens(config.latents, config.channels, config.kernel, config.stride)
    set_cosines(path.conv.weight)
    return path


def _block(config: PatchConfig, i: int) -> TransformerBlock:
    """Return block i, counted through analysis and synthesis."""
    everywhere = config.global_every > 0 and (i + 1) % config.global_every == 0
    # Windows restart after each global block.
    turn = i % config.global_every if config.global_every else i
    block = TransformerBlock(
        config.dim,
        config.heads,
        None if everywhere else config.windows[turn % len(config.windows)],
        shift=config.shift and i % 2 == 1,
        mlp_ratio=config.mlp_ratio,
        depthwise=config.depthwise,
        fixed=config.published,
    )
    return _calm(block, i % config.depth)


def _hyper_block(config: PatchConfig, i: int) -> TransformerBlock:
    block = TransformerBlock(
        config.hyper_dim,
        config.hyper_heads,
        config.hyper_window,
        shift=config.shift and i % 2 == 1,
        mlp_ratio=config.mlp_ratio,
        depthwise=config.depthwise,
    )
    return _calm(block, i % config.hyper_depth)


def _calm(block: TransformerBlock, i: int) -> TransformerBlock:
    """Shrink what a block adds to its input, the more the deeper it lies: stacks start near the identity."""
    with torch.no_grad():
        for weight in (block.attention.out.weight, block.mlp.get_parameter("2.weight")):
            weight.div_(math.sqrt(2 * (i + 1)))
    return block


def within_reach(z: Tensor) -> Tensor:
    """Return hyper-latents, large ones bent towards a limit: else single ones grow during training, and cost much.

    Gradients pass as if nothing were bent: what is at the limit would stay there, however much it costs.
    """
    usual = z.clamp(-HYPER_USUAL, HYPER_USUAL)
    bent = usual + HYPER_USUAL / 2 * torch.tanh((z - usual) * 2 / HYPER_USUAL)
    return z + (bent - z).detach()


def _silence(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, outputs: int | None = None) -> None:
    """Let a layer, or its first outputs, give 0 at the start: the linear path is then the whole model."""
    with torch.no_grad():
        layer.weight[:outputs] = 0
        if layer.bias is not None:
            layer.bias[:outputs] = 0


def _hyper_positions(config: PatchConfig) -> Pair | None:
    if config.positions is None:
        return None
    h, w = (token_count(n, config.hyper_patch, config.hyper_patch) for n in config.positions)
    return h, w


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, n_out))
