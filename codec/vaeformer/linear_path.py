"""The linear path beside the transformers: fields <-> latents, orthonormal or nearly so.

Two kinds of it. The cosine transform of each patch by itself is learned further. The 9/7 wavelet (its lifting as in
codec/latent) of all the field stays as it is: a token's latents are the coefficients of its patch, and where a patch
has one left, its low band, tokens go on from there as a smaller field. So smooth fields need few latents whatever the
patch, and blocks do not show.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from isopress.codec.latent.wavelet import FACTORS, NORM
from isopress.codec.vaeformer.config import Pair

BEYOND = 2  # levels of the wavelet beyond the patch


class ToWavelet(nn.Module):
    """Fields (B, C, H, W) to wavelet coefficients (B, h, w, C * k * k) of tokens that are k x k cells; k is 2**n."""

    def __init__(self, kernel: Pair) -> None:
        super().__init__()
        self.kernel, self.levels = kernel[0], wavelet_levels(kernel)

    def forward(self, x: Tensor, periodic: bool) -> Tensor:
        k = self.kernel
        x = continued(x, _whole_patches(x, k), periodic)
        return F.pixel_unshuffle(wavelet(x, self.levels, periodic), k).permute(0, 2, 3, 1)


class FromWavelet(nn.Module):
    """Wavelet coefficients (B, h, w, C * k * k) to fields (B, C, H, W), cropped to `shape`."""

    def __init__(self, kernel: Pair) -> None:
        super().__init__()
        self.kernel, self.levels = kernel[0], wavelet_levels(kernel)

    def forward(self, latent: Tensor, shape: Pair, periodic: bool) -> Tensor:
        y = F.pixel_shuffle(latent.permute(0, 3, 1, 2), self.kernel)
        return from_wavelet(y, self.levels, periodic)[:, :, : shape[0], : shape[1]]

    def channel(self, latent: Tensor, channel: int, shape: Pair, periodic: bool) -> Tensor:
        """Return one channel (B, H, W) of what `forward` returns, at the cost of one."""
        count = self.kernel**2
        own = latent[..., channel * count : (channel + 1) * count]
        x: Tensor = self(own, shape, periodic)
        return x[:, 0]


def wavelet_levels(kernel: Pair) -> int:
    """Return how many levels the wavelet of such patches has."""
    return kernel[0].bit_length() - 1 + BEYOND


def _whole_patches(x: Tensor, k: int) -> Pair:
    """Return the sides of (B, C, H, W), rounded up to multiples of k."""
    return -(-x.shape[2] // k) * k, -(-x.shape[3] // k) * k


def wavelet(x: Tensor, levels: int, periodic: bool) -> Tensor:
    """Return coefficients of (..., H, W), each where it belongs: the low band of n levels at multiples of 2**n."""
    if levels == 0:
        return x
    low, high = _split(x.transpose(-1, -2), False)
    low, high = low.transpose(-1, -2), high.transpose(-1, -2)
    (low_low, low_high), (high_low, high_high) = _split(low, periodic), _split(high, periodic)
    low_low = wavelet(low_low, levels - 1, periodic)
    return _interleaved(_interleaved(low_low, low_high, -1), _interleaved(high_low, high_high, -1), -2)


def from_wavelet(y: Tensor, levels: int, periodic: bool) -> Tensor:
    """Undo `wavelet`."""
    if levels == 0:
        return y
    low, high = y[..., ::2, :], y[..., 1::2, :]
    low = _joined(from_wavelet(low[..., ::2], levels - 1, periodic), low[..., 1::2], periodic)
    high = _joined(high[..., ::2], high[..., 1::2], periodic)
    return _joined(low.transpose(-1, -2), high.transpose(-1, -2), False).transpose(-1, -2)


def _split(x: Tensor, circle: bool) -> tuple[Tensor, Tensor]:
    """Return low and high bands along the last axis; odd lengths have one more low value, and never close."""
    low, high = x[..., ::2], x[..., 1::2]
    if not high.shape[-1]:
        return low, high
    circle = circle and low.shape[-1] == high.shape[-1]
    for i, factor in enumerate(FACTORS):
        if i % 2 == 0:
            high = high + factor * _beside_high(low, high.shape[-1], circle)
        else:
            low = low + factor * _beside_low(high, low.shape[-1], circle)
    return low * NORM, high / NORM


def _joined(low: Tensor, high: Tensor, circle: bool) -> Tensor:
    """Undo `_split`."""
    if not high.shape[-1]:
        return low
    circle = circle and low.shape[-1] == high.shape[-1]
    low, high = low / NORM, high * NORM
    for i in (3, 2, 1, 0):
        if i % 2 == 0:
            high = high - FACTORS[i] * _beside_high(low, high.shape[-1], circle)
        else:
            low = low - FACTORS[i] * _beside_low(high, low.shape[-1], circle)
    return _interleaved(low, high, -1)


def _beside_high(low: Tensor, count: int, circle: bool) -> Tensor:
    """Return the sum of the two low values beside each high one; the last may have one only, twice."""
    if low.shape[-1] == count:
        low = torch.cat([low, low[..., :1] if circle else low[..., -1:]], -1)
    return low[..., :-1] + low[..., 1:]


def _beside_low(high: Tensor, count: int, circle: bool) -> Tensor:
    """Return the sum of the two high values beside each low one; the first and last may have one only, twice."""
    parts = [high[..., -1:] if circle else high[..., :1], high]
    if count > high.shape[-1]:
        parts.append(high[..., -1:])
    high = torch.cat(parts, -1)
    return high[..., :-1] + high[..., 1:]


def _interleaved(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    shape = list(even.shape)
    shape[dim] += odd.shape[dim]
    out = even.new_empty(shape)
    if dim == -1:
        out[..., ::2], out[..., 1::2] = even, odd
    else:
        out[..., ::2, :], out[..., 1::2, :] = even, odd
    return out


def continued(x: Tensor, shape: Pair, periodic: bool) -> Tensor:
    """Continue fields (B, C, H, W) to a larger shape: the last row repeated, columns repeated or from the start."""
    H, W = x.shape[2:]
    if shape[0] > H:
        x = x.index_select(2, torch.arange(shape[0], device=x.device).clamp_max(H - 1))
    if shape[1] > W:
        columns = torch.arange(shape[1], device=x.device)
        x = x.index_select(3, columns % W if periodic else columns.clamp_max(W - 1))
    return x


def set_cosines(weight: Tensor) -> None:
    """Make the weight (L, C, h, w) of a patch convolution an orthonormal cosine transform, lowest frequencies first.

    Several channels share the latents in turn: all their means first. A weight that has no memory stays as it is.
    """
    if weight.is_meta:
        return
    L, C, h, w = weight.shape
    basis = torch.einsum("ai,bj->abij", _cosines(h), _cosines(w)).reshape(h * w, h, w)
    frequency = (torch.arange(h)[:, None] ** 2 + torch.arange(w) ** 2).flatten()
    order = frequency.argsort(stable=True)
    with torch.no_grad():
        weight.zero_()
        for i in range(L):
            weight[i, i % C] = basis[order[i // C]]


def _cosines(n: int) -> Tensor:
    """Return the orthonormal cosine transform of n points, (frequency, point)."""
    k = torch.arange(n)
    basis = math.sqrt(2 / n) * torch.cos(math.pi / n * k[:, None] * (k + 0.5))
    basis[0] /= math.sqrt(2)
    return basis
