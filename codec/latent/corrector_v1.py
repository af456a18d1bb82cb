"""The first design of the synthesis transformer, that of vaeformer-0.3: payloads that name it decode for ever.

Half-resolution convolutions hold the detail, tokens of 8 x 8 values with window and global attention the context. Only
what decoding needs is here; new weights have the design of `corrector.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.latent.attention import TransformerBlock
from isopress.codec.latent.synthesis import pad, told_by, whole_tokens

FINE = 2  # values per side of a cell of the convolutions
TOKEN = 8  # values per side of a token


@dataclass(frozen=True)
class CorrectorConfigV1:
    """Shape of a corrector: channels of the convolutions; width, heads, number and window of the blocks."""

    channels: int = 24
    dim: int = 128
    heads: int = 4
    blocks: int = 3
    window: int = 8
    mlp_ratio: float = 3.0
    global_attention: bool = True


class CorrectorV1(nn.Module):
    """Map fields (B, 1, h, w) in steps, and log standard deviations (B,) in steps, to corrections (B, 1, h, w)."""

    def __init__(self, config: CorrectorConfigV1) -> None:
        super().__init__()
        c, d, cells = config.channels, config.dim, TOKEN // FINE
        self.first = nn.Conv2d(2 * FINE * FINE + 1, c, 3)
        self.second = nn.Conv2d(c, c, 3)
        self.embed = nn.Conv2d(c, d, cells, stride=cells)
        self.coarse = nn.Conv2d(1, d, 3)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                d, config.heads, (config.window, config.window), shift=bool(i % 2), mlp_ratio=config.mlp_ratio,
                depthwise=True,
            )
            for i in range(config.blocks)
        )  # fmt: skip
        self.overview = TransformerBlock(d, config.heads, None, mlp_ratio=1.0) if config.global_attention else None
        self.widen = nn.Linear(d, cells * cells * c)
        self.third = nn.Conv2d(2 * c, c, 3)
        self.last = nn.Conv2d(c, FINE * FINE, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    @property
    def is_zero(self) -> bool:
        """Whether every correction is 0, as before any training."""
        return not (self.last.weight.any() or (self.last.bias is not None and self.last.bias.any()))

    def forward(self, x: Tensor, spread: Tensor, periodic: bool) -> Tensor:
        """Return the correction of fields in steps; longitude closes on itself if `periodic`."""
        h, w = x.shape[2:]
        x, periodic = whole_tokens(x, TOKEN, periodic)
        a = F.gelu(self.first(pad(_features(x, spread, periodic), 1, periodic)))
        a = F.gelu(self.second(pad(a, 1, periodic)))
        means = torch.asinh(_above_coarse(x, periodic))
        tokens = (self.embed(a) + self.coarse(pad(means, 1, periodic))).permute(0, 2, 3, 1)
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, periodic)
            if self.overview is not None and i == (len(self.blocks) - 1) // 2:
                tokens = tokens + told_by(self.overview, tokens, periodic)
        u = F.pixel_shuffle(self.widen(tokens).permute(0, 3, 1, 2), TOKEN // FINE)
        b = F.gelu(self.third(pad(torch.cat([a, u], 1), 1, periodic)))
        out = F.pixel_shuffle(self.last(pad(b, 1, periodic)), FINE)
        # What is coarser than all that was looked at is known from the latents: nothing may be added to it.
        coarse = F.avg_pool2d(out, TOKEN) - _above_coarse(out, periodic)
        out = out - F.interpolate(coarse, scale_factor=TOKEN, mode="nearest")
        return out[:, :, :h, :w]


def _features(x: Tensor, spread: Tensor, periodic: bool) -> Tensor:
    """Return half-resolution features (B, 9, h / 2, w / 2): what stands out of 9 x 9 and 3 x 3 values; the spread."""
    around = pad(x, 4, periodic)
    broad = x - _moving_mean(around, 9)
    close = x - _moving_mean(around[:, :, 3:-3, 3:-3], 3)
    fine = F.pixel_unshuffle(torch.cat([torch.asinh(broad), torch.asinh(2 * close)], 1), FINE)
    level = (0.3 * spread).view(-1, 1, 1, 1).expand(-1, 1, *fine.shape[2:])
    return torch.cat([fine, level], 1)


def _moving_mean(x: Tensor, n: int) -> Tensor:
    """Return the means of n x n values, one axis after the other: a ninth of the sums."""
    return F.avg_pool2d(F.avg_pool2d(x, (n, 1), 1), (1, n), 1)


def _above_coarse(x: Tensor, periodic: bool) -> Tensor:
    """Return how far the mean of each token's values (B, 1, h / 8, w / 8) is above that of 5 x 5 tokens around it."""
    means = F.avg_pool2d(x, TOKEN)
    return means - F.avg_pool2d(pad(means, 2, periodic), 5, 1)
