"""Transformer blocks on token grids (B, h, w, D): attention in windows or over the whole grid.

h is latitude and has edges, w is longitude and closes on itself if the grid is periodic. Pre-norm blocks after
Dosovitskiy et al. (arXiv 2010.11929), windows after Liu et al. (arXiv 2103.14030). Two departures: windows are evened
out, so that a grid which they do not divide is hardly padded, and they wrap around in longitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

Window = tuple[int, int]  # tokens along latitude and longitude

MLP_ROWS = 16  # rows of tokens that an MLP takes at a time without gradients
EPSILON = 1e-6  # of layer norms


@dataclass(frozen=True)
class Axis:
    """How windows lie along one axis of `n` tokens: `count` windows of `size`, starting `shift` tokens in.

    Padding of `fixed` windows takes part in the attention, as zeros.
    """

    n: int
    size: int
    count: int
    shift: int
    periodic: bool
    fixed: bool = False

    @classmethod
    def divide(cls, n: int, window: int, *, shift: bool, periodic: bool) -> Axis:
        """Return as few windows as cover `n` tokens with at most `window` each, of the smallest size that does."""
        count = -(-n // window)
        size = -(-n // count)
        return cls(n, size, count, size // 2 if shift and count > 1 else 0, periodic)

    @classmethod
    def tile(cls, n: int, window: int) -> Axis:
        """Return windows of exactly `window` tokens side by side, that neither shift nor wrap."""
        return cls(n, window, -(-n // window), 0, periodic=False, fixed=True)

    @property
    def padding(self) -> int:
        """Tokens that the windows hold beyond the axis: copies of the first if it is periodic, else zeros."""
        return self.count * self.size - self.n

    @property
    def needs_mask(self) -> bool:
        """Whether some window holds padding, or tokens from both ends of an axis with edges."""
        return not (self.periodic or self.fixed) and (self.padding > 0 or self.shift > 0)

    def pieces(self) -> Tensor:
        """Return which stretch each place in the windows belongs to, (count, size): equal ones may mix."""
        i = torch.arange(self.count * self.size, device="cpu")
        if self.needs_mask:
            # After the roll come the tokens from `shift` on, then padding, then the first `shift` tokens.
            i = (i >= self.n - self.shift).long() + (i >= self.count * self.size - self.shift)
        else:
            i = torch.zeros_like(i)
        return i.reshape(self.count, self.size)


@lru_cache(maxsize=64)
def window_mask(lat: Axis, lon: Axis) -> Tensor | None:
    """Return what is added to attention scores, (windows, 1, tokens, tokens) of 0 and -inf, or None if all may mix."""
    if not (lat.needs_mask or lon.needs_mask):
        return None
    # A mask made in inference mode or on a default device could not serve a later training step.
    with torch.inference_mode(False), torch.no_grad():
        # (lat.count, lon.count, lat.size, lon.size)
        piece = lat.pieces()[:, None, :, None] * 3 + lon.pieces()[None, :, None, :]
        piece = piece.reshape(lat.count * lon.count, -1)
        mixed = piece[:, :, None] != piece[:, None, :]
        return torch.zeros(mixed.shape, device="cpu").masked_fill_(mixed, float("-inf"))[:, None]


def to_windows(x: Tensor, lat: Axis, lon: Axis) -> Tensor:
    """Cut (B, h, w, D) into windows (B * lat.count * lon.count, lat.size * lon.size, D)."""
    B, D = x.shape[0], x.shape[3]
    if lon.periodic:
        if lon.shift:
            x = x.roll(-lon.shift, 2)
        if lon.padding:
            x = torch.cat([x, x[:, :, : lon.padding]], 2)
    right = 0 if lon.periodic else lon.padding
    if right or lat.padding:
        x = F.pad(x, (0, 0, 0, right, 0, lat.padding))
    shifts = lat.shift, 0 if lon.periodic else lon.shift
    if any(shifts):
        x = x.roll((-shifts[0], -shifts[1]), (1, 2))
    x = x.reshape(B, lat.count, lat.size, lon.count, lon.size, D).transpose(2, 3)
    return x.reshape(-1, lat.size * lon.size, D)


def from_windows(x: Tensor, lat: Axis, lon: Axis) -> Tensor:
    """Undo `to_windows`: (B * lat.count * lon.count, lat.size * lon.size, D) to (B, h, w, D)."""
    D = x.shape[2]
    x = x.reshape(-1, lat.count, lon.count, lat.size, lon.size, D).transpose(2, 3)
    x = x.reshape(-1, lat.count * lat.size, lon.count * lon.size, D)
    shifts = lat.shift, 0 if lon.periodic else lon.shift
    if any(shifts):
        x = x.roll(shifts, (1, 2))
    x = x[:, : lat.n, : lon.n]
    return x.roll(lon.shift, 2) if lon.periodic and lon.shift else x


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows of at most `window` tokens, or over the whole grid.

    Parameters
    ----------
    dim, heads : int
        D, and the number of heads, which divides it.
    window : (int, int), optional
        Largest window along (latitude, longitude); None for the whole grid.
    shift : bool
        Whether the windows start half a window in. Along an axis that one window covers there is no shift.
    qkv_bias : bool
        Whether queries, keys and values have a bias.
    fixed : bool
        Whether windows have exactly their size, are padded with zeros that take part, and never wrap.

    Raises
    ------
    ValueError
        `heads` does not divide `dim`, or `window` is not positive.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: Window | None = None,
        *,
        shift: bool = False,
        qkv_bias: bool = True,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        if window is not None and min(window) < 1:
            raise ValueError(f"window must be positive, got {window}")
        self.heads, self.window, self.shift, self.fixed = heads, window, shift, fixed
        self.half_precision = False  # whether scores and their sums are computed in float16
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        """Map tokens (B, h, w, D) to tokens of the same shape; h and w are arbitrary.

        Tokens never mix across the first and last row, nor across the first and last column unless `periodic`.
        """
        B, h, w = x.shape[:3]
        lat, lon = self._axes(h, w, periodic)
        mask = window_mask(lat, lon)
        if mask is not None:
            mask = mask.to(x.device).repeat(B, 1, 1, 1)
        x = to_windows(x, lat, lon)
        N, T, D = x.shape  # windows, tokens in one, width
        qkv = self.qkv(x).view(N, T, 3, self.heads, D // self.heads)
        q, k, v = (qkv.half() if self.half_precision else qkv).unbind(2)
        mask = mask if mask is None else mask.to(q.dtype)
        # (N, heads, T, D / heads), all of them views
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
        return from_windows(self.out(y.transpose(1, 2).reshape(N, T, D).to(x.dtype)), lat, lon)

    def _axes(self, h: int, w: int, periodic: bool) -> tuple[Axis, Axis]:
        """Return how the windows lie along latitude and longitude."""
        wh, ww = self.window or (h, w)
        if self.fixed:
            return Axis.tile(h, wh), Axis.tile(w, ww)
        return Axis.divide(h, wh, shift=self.shift, periodic=False), Axis.divide(
            w, ww, shift=self.shift, periodic=periodic
        )


class DepthwiseConv(nn.Module):
    """3x3 convolution of each channel by itself: circular in longitude if periodic, zeros beyond all other edges.

    Zero at the start, so that a residual branch of it begins as the identity.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        """Map tokens (B, h, w, D) to the same shape."""
        if periodic:
            x = torch.cat([x[:, :, -1:], x, x[:, :, :1]], 2)
        # Tokens are already what torch calls channels-last: no copy.
        x = x.permute(0, 3, 1, 2)
        y = F.conv2d(x, self.weight, self.bias, padding=(1, 0 if periodic else 1), groups=len(self.bias))
        return y.permute(0, 2, 3, 1)


class TransformerBlock(nn.Module):
    """Pre-norm block: optional depthwise convolution, attention and an MLP, each added to its input.

    Parameters
    ----------
    dim, heads, window, shift, qkv_bias, fixed
        As of `WindowAttention`.
    mlp_ratio : float
        Width of the MLP's hidden layer over `dim`.
    depthwise : bool
        Whether a 3x3 depthwise convolution comes before the attention; it tells the tokens where their neighbours are.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: Window | None = None,
        *,
        shift: bool = False,
        mlp_ratio: float = 4.0,
        depthwise: bool = False,
        qkv_bias: bool = True,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.conv = DepthwiseConv(dim) if depthwise else None
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attention = WindowAttention(dim, heads, window, shift=shift, qkv_bias=qkv_bias, fixed=fixed)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        """Map tokens (B, h, w, D) to the same shape; `periodic` says whether longitude closes on itself."""
        if self.conv is not None:
            x = x + self.conv(x, periodic)
        x = x + self.attention(self.norm1(x), periodic)
        if torch.is_grad_enabled():
            more: Tensor = self.mlp(self.norm2(x))
            return x + more
        for start in range(0, x.shape[1], MLP_ROWS):  # hidden layers are the widest of all
            rows = x[:, start : start + MLP_ROWS]  # the sum above is nobody else's
            rows.add_(self.mlp(self.norm2(rows)))
        return x


class AbsolutePosition(nn.Module):
    """A learned vector per token of a reference grid, interpolated bilinearly to grids of other shapes."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(1, *grid, dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions to tokens (B, h, w, D)."""
        h, w = x.shape[1:3]
        if (h, w) == self.table.shape[1:3]:
            return x + self.table
        table = F.interpolate(self.table.permute(0, 3, 1, 2), (h, w), mode="bilinear", align_corners=False)
        return x + table.permute(0, 2, 3, 1)
