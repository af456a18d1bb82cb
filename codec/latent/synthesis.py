"""The synthesis transformer in floats, for training: `correction.py` computes the same in whole numbers.

It sees only what stands out of its neighbourhood, so one set of weights serves every variable and unit. Convolutions
over cells of 4 x 4 values hold the detail; tokens of 16 x 16 values with window and global attention hold the context.
Cells and tokens are this large for speed: a quarter of the time of half as large ones (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.latent.attention import TransformerBlock
from isopress.codec.latent.correction import GAIN, MARGIN, POOL, PREFIX, WIDE, SynthesisConfig
from isopress.codec.latent.integer_transformer import STRIP


class Synthesis(nn.Module):
    """Map fields (B, 1, h, w) in steps, and log standard deviations (B,) in steps, to corrections (B, 1, h, w).

    Letters: B fields, C channels, D width of tokens, H and W cells along latitude and longitude, r cells per side of a
    token. Zero at the start: without training the linear path is all there is.
    """

    def __init__(self, config: SynthesisConfig) -> None:
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

    def forward(self, x: Tensor, spread: Tensor, periodic: bool) -> Tensor:
        """Return the correction of fields in steps; longitude closes on itself if `periodic`.

        Convolutions go through strips of whole rows of tokens, so that what they hold at once is small.
        """
        (h, w), r = x.shape[2:], self.cells
        down, right = -h % self.config.token, -w % self.config.token
        if down or right:  # continued by the last row and column to whole tokens; a width that needs it has edges
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        periodic = periodic and not right
        mean = F.avg_pool2d(x, self.config.cell)  # (B, 1, H, W)
        near, far = _surroundings(mean, periodic)
        found, tokens, H = list[Tensor](), list[Tensor](), mean.shape[2]
        strips = [(start, min(start + STRIP * r, H)) for start in range(0, H, STRIP * r)]
        for start, stop in strips:
            rows = torch.arange(start - 2 * MARGIN, stop + 2 * MARGIN, device=x.device).clamp(0, H - 1)
            seen = _around(_features(x, near, far, rows, self.config.cell), 2 * MARGIN, periodic)
            found.append(F.gelu(self.second(F.gelu(self.first(seen)))))  # (B, C, rows + 2 * MARGIN, W + 2 * MARGIN)
            tokens.append(self._tokens(found[-1]))
        quality = self.quality(0.3 * spread[:, None])[:, None, None]
        context = pad(self._context(torch.cat(tokens, 1).add(quality), periodic).permute(0, 3, 1, 2), 1, periodic)
        context, out = context.permute(0, 2, 3, 1), list[Tensor]()  # (B, H / r + 2, W / r + 2, D)
        for start, stop in strips:
            told = self._told(context[:, start // r : stop // r + 2])
            both = torch.cat([found.pop(0).permute(0, 2, 3, 1), told], 3)  # channels last, as they lie
            out.append(self.last(F.gelu(self.third(both.permute(0, 3, 1, 2)))))  # (B, cell * cell, rows, W)
        return self._freed(out, periodic)[:, :, :h, :w]

    def _tokens(self, a: Tensor) -> Tensor:
        """Return embedded tokens (B, h, w, D) of what convolutions found of some rows of them, with margins."""
        r, c = self.cells, self.config.channels
        inner = a[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].permute(0, 2, 3, 1)  # (B, H, W, C)
        B, H, W = inner.shape[:3]
        return torch.as_tensor(
            self.embed(inner.reshape(B, H // r, r, W // r, r, c).transpose(2, 3).reshape(B, H // r, W // r, -1))
        )

    def _told(self, context: Tensor) -> Tensor:
        """Return what tokens (B, h + 2, w + 2, D) say of their cells, (B, H + 2 * MARGIN, W + 2 * MARGIN, C)."""
        (B, h, w), r, c = context.shape[:3], self.cells, self.config.channels
        told = self.widen(context).reshape(B, h, w, r, r, c).transpose(2, 3).reshape(B, h * r, w * r, c)
        beyond = r - MARGIN
        return torch.as_tensor(told[:, beyond : told.shape[1] - beyond, beyond : told.shape[2] - beyond])

    def _freed(self, out: list[Tensor], periodic: bool) -> Tensor:
        """Return corrections (B, 1, h, w) of strips (B, cell * cell, rows, W), without what tokens around share.

        The mean of the corrections of the 5 x 5 tokens around each cell's own is taken off: what is coarser than all
        that was looked at is known from the latents, and nothing may be added to it.
        """
        r, start, parts = self.cells, 0, list[Tensor]()
        means = torch.cat([F.avg_pool2d(strip.mean(1, keepdim=True), r) for strip in out], 2)
        means = F.avg_pool2d(pad(means, 2, periodic), 5, 1)
        for strip in out:
            stop = start + strip.shape[2] // r
            near = F.interpolate(means[:, :, start:stop], scale_factor=r, mode="nearest")
            parts.append(F.pixel_shuffle(strip - near, self.config.cell))
            start = stop
        return torch.cat(parts, 2)

    def _context(self, tokens: Tensor, periodic: bool) -> Tensor:
        """Send tokens (B, h, w, D) through the blocks; in their middle, global attention over means of 4 x 4 tokens."""
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, periodic)
            if i == (len(self.blocks) - 1) // 2:
                h, w = tokens.shape[1:3]
                means = F.avg_pool2d(tokens.permute(0, 3, 1, 2), POOL, ceil_mode=True).permute(0, 2, 3, 1)
                told = (self.overview(means, periodic) - means).permute(0, 3, 1, 2)
                told = F.interpolate(told, scale_factor=POOL, mode="nearest")[:, :, :h, :w]
                tokens = tokens + told.permute(0, 2, 3, 1)
        return tokens

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Synthesis:
        """Return the synthesis of a weights file, ready to run.

        Raises
        ------
        ValueError
            Tensors are missing, or have other shapes.
        """
        made = cls(SynthesisConfig(**config))
        state = {
            name.removeprefix(PREFIX): torch.from_numpy(value.astype(np.float32))
            for name, value in tensors.items()
            if name.startswith(PREFIX)
        }
        try:
            made.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit their synthesis: {error}") from error
        return made.eval().requires_grad_(False)

    def stored(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return its shape, and its tensors in half precision: what `restore` takes."""
        tensors = {PREFIX + name: value.detach().half().numpy() for name, value in self.state_dict().items()}
        return asdict(self.config), tensors


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


def _around(x: Tensor, n: int, periodic: bool) -> Tensor:
    """Pad (B, C, h, w) by n columns on both sides, as `pad` does."""
    columns = torch.arange(-n, x.shape[3] + n, device=x.device)
    columns = columns % x.shape[3] if periodic else columns.clamp(0, x.shape[3] - 1)
    return x.permute(0, 2, 3, 1).index_select(2, columns).permute(0, 3, 1, 2)


def _surroundings(mean: Tensor, periodic: bool) -> tuple[Tensor, Tensor]:
    """Return means of 3 x 3 cells, and cells' means (B, 1, H, W) less those of 9 x 9."""
    near = F.avg_pool2d(pad(mean, 1, periodic), 3, 1)
    return near, mean - F.avg_pool2d(pad(mean, WIDE, periodic), 2 * WIDE + 1, 1)


def _features(x: Tensor, near: Tensor, far: Tensor, rows: Tensor, cell: int) -> Tensor:
    """Return (B, cell * cell + 1, rows, W) of some rows of cells: values less the mean of 3 x 3 cells; the cell's mean
    less that of 9 x 9 cells. Logarithmic beyond a third of a step."""
    B, _, h, w = x.shape
    values = F.pixel_unshuffle(x.view(B, h // cell, cell, w).index_select(1, rows).view(B, 1, -1, w), cell)
    detail = GAIN * torch.cat([values - near.index_select(2, rows), far.index_select(2, rows)], 1)
    return torch.copysign(torch.log1p(detail.abs()), detail).contiguous(memory_format=torch.channels_last)
