"""CRA5's own files: `.bin` <-> symbols <-> fields.

A file has no magic, no date and no checksum: sides of the hyper-latent, two strings (latents, then hyper-latents).
The scales of its latents are floats, and the writer may have computed attention in float16: whichever arithmetic leads
to a good end of the stream was the writer's.
"""

from __future__ import annotations

import struct
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.latent.attention import WindowAttention
from isopress.codec.threads import in_team
from isopress.codec.vaeformer.channels import Channels
from isopress.codec.vaeformer.config import Pair
from isopress.codec.vaeformer.layers import token_count
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.rans import DerailedError, Rows, decode, encode

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

LEAST_SCALE = np.float32(0.11)
ARITHMETICS = {"float32": False, "float16 attention": True}  # tried in this order
_HEAD = struct.Struct(">3I")
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class Strings:
    """What a file says of itself: the sides of its hyper-latent, its latents and hyper-latents as strings."""

    grid: Pair
    latents: bytes
    hyper: bytes

    def to_bytes(self) -> bytes:
        """Return the file."""
        parts = [_HEAD.pack(*self.grid, 2)]
        for string in (self.latents, self.hyper):
            parts += [_LENGTH.pack(len(string)), string]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Strings:
        """Return what a file holds.

        Raises
        ------
        TruncatedPayloadError, CorruptPayloadError
            It ends early, or is no such file.
        """
        if len(data) < _HEAD.size:
            raise TruncatedPayloadError(f"{len(data)} bytes are too few for a file of CRA5")
        *grid, count = _HEAD.unpack_from(data)
        if count != 2 or not all(0 < n < 2**16 for n in grid):
            raise CorruptPayloadError(f"not a file of CRA5: it claims {count} strings for a grid of {grid}")
        strings, at = list[bytes](), _HEAD.size
        for _ in range(count):
            if len(data) < at + _LENGTH.size:
                raise TruncatedPayloadError("the file ends before its last string")
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            if at > len(data):
                raise TruncatedPayloadError(f"the file of {len(data)} bytes ends inside a string of {length}")
            strings.append(data[at - length : at])
        if at != len(data):
            raise CorruptPayloadError(f"{len(data) - at} bytes too many follow the strings of the file")
        return cls((grid[0], grid[1]), *strings)


@dataclass(frozen=True, eq=False)
class Cra5Model:
    """The published model with its tables: files <-> symbols -> fields.

    hyper_rows : a table per channel of hyper-latents; rows : a table per scale.
    """

    network: PatchVAEformer
    channels: Channels
    scales: F32
    rows: Rows
    hyper_rows: Rows
    shape: Pair  # of fields, (H, W)

    @property
    def grid(self) -> Pair:
        """Sides of the hyper-latent."""
        h, w = self.positions
        patch = self.network.config.hyper_patch
        return token_count(h, patch, patch), token_count(w, patch, patch)

    @property
    def positions(self) -> Pair:
        """Sides of the latent."""
        h, w = (
            token_count(n, k, s)
            for n, k, s in zip(self.shape, self.network.config.kernel, self.network.config.stride, strict=True)
        )
        return h, w

    @property
    def _medians(self) -> Tensor:
        medians = self.network.prior.medians
        assert medians is not None
        return medians.detach()[:, None, None]

    @property
    @cache  # noqa: B019 - models live as long as the process
    def _halved(self) -> PatchVAEformer:
        """The same weights with global attention in float16; that of windows is float32 always."""
        network = deepcopy(self.network, {id(weight): weight for weight in self.network.parameters()})
        for module in network.modules():
            if isinstance(module, WindowAttention):
                module.half_precision = module.window is None
        return network

    def indexes(self, scales: F32) -> I32:
        """Return the table of each scale, the smallest that is not below it."""
        bounded = np.maximum(scales, LEAST_SCALE)
        return np.searchsorted(self.scales[:-1], bounded, side="left").astype(np.int32)

    @in_team
    @torch.inference_mode()
    def encode(self, fields: F32) -> bytes:
        """Return normalised fields (C, H, W) as a file, in float32."""
        y, _ = self.network.analysis(torch.from_numpy(fields)[None])
        z_symbols = torch.round(self.network.hyper_analysis(y) - self._medians)
        means, scales = self._hyper(z_symbols[0].numpy().astype(np.int32), half=False)
        symbols = torch.round(y - torch.from_numpy(means)[None])[0].numpy().astype(np.int32)
        latents = encode(symbols.ravel(), self.indexes(scales).ravel(), self.rows)
        hyper = z_symbols[0].numpy().astype(np.int32)
        return Strings(self.grid, latents, encode(hyper.ravel(), self._hyper_indexes(), self.hyper_rows)).to_bytes()

    @in_team
    @torch.inference_mode()
    def decode(self, data: bytes) -> Decoded:
        """Return the latents of a file, which fields are made of.

        Raises
        ------
        TruncatedPayloadError, CorruptPayloadError
            The file is damaged, or of another model. Its streams end badly with every arithmetic.
        """
        strings = Strings.from_bytes(data)
        if strings.grid != self.grid:
            raise CorruptPayloadError(f"the file has hyper-latents of {strings.grid}, the model makes {self.grid}")
        try:
            z = decode(strings.hyper, self._hyper_indexes(), self.hyper_rows)
        except DerailedError as error:
            raise CorruptPayloadError(
                f"the hyper-latents are damaged ({error}): these need no network, so no arithmetic helps; "
                "are these the weights that the file was written with?"
            ) from error
        z, reasons = z.reshape(-1, *self.grid), list[str]()
        for name, half in ARITHMETICS.items():
            means, scales = self._hyper(z, half=half)
            try:
                symbols = decode(strings.latents, self.indexes(scales).ravel(), self.rows)
            except DerailedError as error:
                reasons.append(str(error))
                continue
            y_hat = means + symbols.reshape(means.shape).astype(np.float32)
            network = self._halved if half else self.network
            return Decoded(self, y_hat, name, network.decoder.last_tokens(torch.from_numpy(y_hat)[None], None, False))
        raise CorruptPayloadError(
            f"the latents derail with {' and with '.join(ARITHMETICS)}: the writer's arithmetic was another, or the "
            f"file is damaged ({'; '.join(reasons)})"
        )

    def _hyper_indexes(self) -> I32:
        h, w = self.grid
        return np.arange(self.network.config.hyper_latents, dtype=np.int32).repeat(h * w)

    @torch.inference_mode()
    def _hyper(self, z: I32, *, half: bool) -> tuple[F32, F32]:
        """Return means and scales of the latents, (L, h, w) each."""
        z_hat = torch.from_numpy(z.astype(np.float32)) + self._medians
        network = self._halved if half else self.network
        means, scales = network.hyper_synthesis(z_hat[None], shape=self.positions)
        return means[0].numpy(), scales[0].numpy()


@dataclass(frozen=True, eq=False)
class Decoded:
    """Latents (L, h, w) of a file, the arithmetic that they were found with, and what all fields are made of.

    tokens : (1, h, w, D), many times smaller than the fields of 268 channels.
    """

    model: Cra5Model
    y_hat: F32
    arithmetic: str
    tokens: Tensor

    def channel(self, i: int) -> F32:
        """Return one field (H, W) in its unit."""
        channels, fields = self.model.channels, self.model.network.decoder.fields
        with torch.inference_mode():
            x = fields.channel(self.tokens, i, self.model.shape)[0].numpy()
        field: F32 = x * channels.deviation[i] + channels.mean[i]
        return field
