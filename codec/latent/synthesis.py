"""The transformer of analysis and synthesis: field to correction, both in units of the quantiser's step.

It sees only what stands out of its neighbourhood, so one set of weights serves every variable and unit. Convolutions
over cells of 4 x 4 values hold the detail; tokens of 16 x 16 values with window and global attention hold the context.
Cells and tokens are this large for speed: the second design, a quarter of the first one's time (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.latent.attention import TransformerBlock

POOL = 4  # tokens per side of what global attention sees
WIDE = 4  # cells on each side of the mean that a cell's own is compared with
MARGIN = 2  # cells around the field that each pair of convolutions needs
GAIN = 3.0  # of the features: a third of a step is what matters


@dataclass(frozen=True)
class CorrectorConfig:
    """Shape of a corrector: values per side of cells and tokens; channels of the convolutions; width, heads, number
    and window of the blocks.

    Raises
    ------
    ValueError
        Tokens are not whole cells, at least MARGIN to a side.
    """

    cell: int = 4
    token: int = 16
    channels: int = 48
    dim: int = 128
    heads: int = 4
    blocks: int = 3
    window: int = 8
    mlp_ratio: float = 3.0

    def __post_init__(self) -> None:
        if self.token % self.cell or self.token < MARGIN * self.cell:
            raise ValueError(f"a token of {self.token} values does not hold {MARGIN} or more cells of {self.cell}")


class Corrector(nn.Module):
    """Map fields (B, 1, h, w) in steps, and log standard deviations (B,) in steps, to corrections (B, 1, h, w).

    Zero at the start: without training the linear skip path is all there is.
    """

    def __init__(self, config: CorrectorConfig) -> None:
        super().__init__()
        self.config = config
        c, d, values = config.channels, config.dim, config.cell**2
        self.cells = config.token // config.cell  # per side of a token
        self.first = nn.Conv2d(values + 1, c, 3)
        self.second = nn.Conv2d(c, c, 3)
        self.embed = nn.Linear(self.cells**2 * c, d)
        self.quality = nn.Linear(1, d)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                d, config.heads, (config.window, config.window), shift=bool(i % 2), mlp_ratio=config.mlp_ratio,
                depthwise=True,
            )
            for i in range(config.blocks)
        )  # fmt: skip
        self.overview = TransformerBlock(d, config.heads, None, mlp_ratio=1.0)
        self.widen = nn.Linear(d, self.cells**2 * c)
        self.third = nn.Conv2d(2 * c, c, 3)
        self.last = nn.Conv2d(c, values, 3)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def is_zero(self) -> bool:
        """Whether every correction is 0, as before any training."""
        return not (self.last.weight.any() or (self.last.bias is not None and self.last.bias.any()))

    def forward(self, x: Tensor, spread: Tensor, periodic: bool) -> Tensor:
        """Return the correction of fields in steps; longitude closes on itself if `periodic`."""
        h, w = x.shape[2:]
        x, periodic = whole_tokens(x, self.config.token, periodic)
        seen = pad(_features(x, self.config.cell, periodic), 2 * MARGIN, periodic)
        a = F.gelu(self.second(F.gelu(self.first(seen))))
        tokens = self._context(a[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN], spread, periodic)
        told = self._cells_of(self.widen(pad(tokens, 1, periodic).permute(0, 2, 3, 1)))
        beyond = self.cells - MARGIN
        told = told[:, :, beyond : told.shape[2] - beyond, beyond : told.shape[3] - beyond]
        both = torch.cat([a.permute(0, 2, 3, 1), told.permute(0, 2, 3, 1)], 3)  # channels last, as they lie
        del a, told  # the largest of all
        out = self.last(F.gelu(self.third(both.permute(0, 3, 1, 2))))
        correction: Tensor = F.pixel_shuffle(out - self._coarse(out, periodic), self.config.cell)
        return correction[:, :, :h, :w]

    def _context(self, a: Tensor, spread: Tensor, periodic: bool) -> Tensor:
        """Return tokens (B, D, h / token, w / token) of what the convolutions saw."""
        tokens: Tensor = self.embed(self._tokens_of(a)) + self.quality(0.3 * spread[:, None])[:, None, None]
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, periodic)
            if i == (len(self.blocks) - 1) // 2:
                tokens = tokens + told_by(self.overview, tokens, periodic)
        return tokens.permute(0, 3, 1, 2)

    def _tokens_of(self, a: Tensor) -> Tensor:
        """Join the cells of each token: (B, C, H, W) to (B, H / r, W / r, r * r * C)."""
        B, C, H, W = a.shape
        r = self.cells
        return a.permute(0, 2, 3, 1).reshape(B, H // r, r, W // r, r, C).transpose(2, 3).reshape(B, H // r, W // r, -1)

    def _cells_of(self, tokens: Tensor) -> Tensor:
        """Undo `_tokens_of`."""
        B, h, w, _ = tokens.shape
        r = self.cells
        return tokens.reshape(B, h, w, r, r, -1).transpose(2, 3).reshape(B, h * r, w * r, -1).permute(0, 3, 1, 2)

    def _coarse(self, out: Tensor, periodic: bool) -> Tensor:
        """Return the mean of the corrections of the 5 x 5 tokens around each cell's own.

        What is coarser than all that was looked at is known from the latents: nothing may be added to it.
        """
        means = F.avg_pool2d(out.mean(1, keepdim=True), self.cells)
        return F.interpolate(F.avg_pool2d(pad(means, 2, periodic), 5, 1), scale_factor=self.cells, mode="nearest")


def whole_tokens(x: Tensor, token: int, periodic: bool) -> tuple[Tensor, bool]:
    """Pad fields at the end, by their last row and column, to whole tokens; a width that needs it is not periodic."""
    down, right = -x.shape[2] % token, -x.shape[3] % token
    if down or right:
        x = F.pad(x, (0, right, 0, down), mode="replicate")
    return x, periodic and not right


def pad(x: Tensor, n: int, periodic: bool) -> Tensor:
    """Pad (B, C, h, w) by n on all sides: the nearest values, or those around the globe in longitude.

    The result has channels last in memory, as convolutions want it, unless there is only one.
    """
    h, w = x.shape[2:]
    rows = torch.arange(-n, h + n, device=x.device).clamp(0, h - 1)
    columns = torch.arange(-n, w + n, device=x.device)
    columns = columns % w if periodic else columns.clamp(0, w - 1)
    if x.shape[1] == 1:
        return x.index_select(2, rows).index_select(3, columns)
    return x.permute(0, 2, 3, 1).index_select(1, rows).index_select(2, columns).permute(0, 3, 1, 2)


def _features(x: Tensor, cell: int, periodic: bool) -> Tensor:
    """Return (B, cell * cell + 1, h / cell, w / cell): values less the mean of 3 x 3 cells; the cell's mean less that
    of 9 x 9 cells. Logarithmic beyond a third of a step."""
    values = F.pixel_unshuffle(x, cell)
    mean = values.mean(1, keepdim=True)
    near, far = (mean - F.avg_pool2d(pad(mean, n, periodic), 2 * n + 1, 1) for n in (1, WIDE))
    detail = GAIN * torch.cat([values - mean + near, far], 1)
    return torch.copysign(torch.log1p(detail.abs()), detail).contiguous(memory_format=torch.channels_last)


def told_by(block: nn.Module, tokens: Tensor, periodic: bool) -> Tensor:
    """Return what global attention over means of 4 x 4 tokens adds to each token."""
    h, w = tokens.shape[1:3]
    means = F.avg_pool2d(tokens.permute(0, 3, 1, 2), POOL, ceil_mode=True).permute(0, 2, 3, 1)
    told = (block(means, periodic) - means).permute(0, 3, 1, 2)
    grown = F.interpolate(told, scale_factor=POOL, mode="nearest")[:, :, :h, :w]
    return grown.permute(0, 2, 3, 1)
