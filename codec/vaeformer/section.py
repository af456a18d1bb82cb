"""Fields <-> the vaeformer section: normalisation, latents and hyper-latents, symbols.

fields (T, C, H, W) --means, deviations--> x --analysis--> y --hyper analysis--> z (rounded)
z --integer network--> tables of y;  z --hyper synthesis--> means of y;  y - means --rounded--> symbols
section: head, order of the channels if it is not that of the weights, means and deviations if they are the fields' own,
symbols of z, symbols of y, checksum of both
values <--deviations, means-- x_hat <--synthesis-- means + symbols

Nothing before the symbols of y is a float for the reader: other machines, threads or libraries find the same symbols.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isopress.codec.bytes import crc32c
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.entropy.tables import check_count
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.threads import in_team
from isopress.codec.vaeformer.config import Pair
from isopress.codec.vaeformer.integer_scales import HYPER_MAX, scale_of, step_of
from isopress.codec.vaeformer.normalisation import (
    Normalisation,
    normalisation_of,
    read_normalisation,
    write_normalisation,
)
from isopress.codec.vaeformer.weights import VaeformerModel

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]

INDEX_MAX = 640  # of step indexes: steps of 2**-20 to 2**20 deviations
SYMBOL_MAX = 2**24  # binary32 holds them all
_HEAD = struct.Struct("<Bh")  # flags, step index
_CRC = 4
_PERIODIC, _OWN, _ORDERED = 1, 2, 4

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class Hour:
    """The integers of one (C, H, W): hyper-latents (Z, h, w) and symbols of latents (L, h, w)."""

    hyper: I32
    symbols: I32


@dataclass(eq=False)
class FieldDecoder:
    """Fields of a section, made when they are asked for, of tokens that are made once for each hour.

    order : which channel of the weights each channel of the fields is; all else is in the order of the weights.
    """

    model: VaeformerModel
    shape: Shape4
    index: int
    periodic: bool
    normalisation: Normalisation
    hours: list[Hour]
    order: tuple[int, ...]
    synthesised: int = 0  # how often tokens were made
    _made: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @in_team
    def field(self, t: int, channel: int) -> F64:
        """Return the values (H, W) of one channel of hour `t`."""
        network, channel = self.model.network, self.order[channel]
        with torch.inference_mode():
            latent, tokens = self._tokens(t)
            x = network.decoder.channel(tokens, latent, _step(self.index), channel, self.shape[2:], self.periodic)[0]
        return self.normalisation.restored(x.numpy(), t, channel)

    def values(self) -> F64:
        """Return all values (T, C, H, W)."""
        out = np.empty(self.shape)
        for t, c in np.ndindex(self.shape[:2]):
            out[t, c] = self.field(t, c)
        return out

    def _tokens(self, t: int) -> tuple[Tensor, Tensor]:
        """Return latents in units and the last tokens of an hour; one channel alone needs them once only."""
        if t in self._made:
            return self._made[t]
        network, hour, step = self.model.network, self.hours[t], _step(self.index)
        scale = self.model.scale_indexes(hour.hyper, self.index, self.shape[2:], self.periodic)
        latent = _means(self.model, hour.hyper, scale, step, self.periodic)
        gain = network.gain_of(step)
        assert gain is not None
        latent = (latent + torch.from_numpy(hour.symbols.astype(np.float32))[None]) / gain
        made = latent, network.decoder.last_tokens(latent, step, self.periodic)
        self.synthesised += 1
        if self.shape[1] > 1:
            self._made[t] = made
        return made


@in_team
@torch.inference_mode()
def encode_fields(
    fields: F64, index: int, model: VaeformerModel, *, periodic: bool, order: tuple[int, ...] = ()
) -> tuple[bytes, FieldDecoder]:
    """Return the section of fields (T, C, H, W) at the step of this index, and what decodes it.

    order : which channel of the weights each of C is; as in the weights if it is left out.
    """
    usual = tuple(range(fields.shape[1]))
    order = order or usual
    if order != usual:
        fields = fields[:, np.argsort(order)]
    writer, hours = SymbolWriter(peaked=True), list[Hour]()
    step, network, normalisation = _step(index), model.network, normalisation_of(fields, model.channels)
    for t, x in enumerate(fields):
        normal = torch.from_numpy(normalisation.normalised(x, t))[None]
        y, _ = network.analysis(normal, step, periodic=periodic)
        z = network.hyper_analysis(y, step, periodic=periodic)[0]
        hyper = _integers(z, HYPER_MAX)
        scale = model.scale_indexes(hyper, index, fields.shape[2:], periodic)
        symbols = _integers((y - _means(model, hyper, scale, step, periodic))[0], SYMBOL_MAX)
        _write(writer, model, Hour(hyper, symbols), scale)
        hours.append(Hour(hyper, symbols))
    head = _HEAD.pack(_PERIODIC * periodic | _OWN * normalisation.own | _ORDERED * (order != usual), index)
    if order != usual:
        head += np.array(order, "<u2").tobytes()
    if normalisation.own:
        head += write_normalisation(normalisation)
    T, C, H, W = fields.shape
    decoder = FieldDecoder(model, (T, C, H, W), index, periodic, normalisation, hours, order)
    return head + writer.finish() + _checksum(hours), decoder


def decode_section(section: bytes, shape: Shape4, model: VaeformerModel) -> FieldDecoder:
    """Return what decodes the fields (T, C, H, W) of a section; no float comes before its symbols.

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        The section is damaged.
    """
    if len(section) < _HEAD.size + _CRC:
        raise TruncatedPayloadError(f"the vaeformer section has {len(section)} bytes, too few for its head")
    flags, index = _HEAD.unpack_from(section)
    if flags & ~(_PERIODIC | _OWN | _ORDERED) or abs(index) > INDEX_MAX:
        raise CorruptPayloadError(f"the vaeformer section has flags {flags} and step index {index}")
    periodic, stream = bool(flags & _PERIODIC), memoryview(section)[_HEAD.size : -_CRC]
    order, taken = _order(stream, shape[1], given=bool(flags & _ORDERED))
    stream = stream[taken:]
    normalisation, taken = _normalisation(stream, shape[:2], model, own=bool(flags & _OWN))
    stream = stream[taken:]
    check_count(shape[0] * sum(_counts(model, shape[2:])), len(stream))
    reader, hours = SymbolReader(stream, peaked=True), list[Hour]()
    for _ in range(shape[0]):
        hours.append(_read(reader, model, shape[2:], index, periodic))
    reader.finish()
    if section[-_CRC:] != _checksum(hours):
        raise CorruptPayloadError("the decoded latents do not have the checksum that was stored with them")
    return FieldDecoder(model, shape, index, periodic, normalisation, hours, order)


def _order(stream: memoryview, channels: int, *, given: bool) -> tuple[tuple[int, ...], int]:
    """Return which channel of the weights each one of the fields is, and how many bytes of the stream say so."""
    usual = tuple(range(channels))
    if not given:
        return usual, 0
    if len(stream) < 2 * channels:
        raise TruncatedPayloadError(
            f"the vaeformer section has {len(stream)} bytes for the order of {channels} channels"
        )
    order = tuple(np.frombuffer(stream, "<u2", channels).tolist())
    if tuple(sorted(order)) != usual or order == usual:
        raise CorruptPayloadError("the order of the vaeformer section's channels does not have each of them once")
    return order, 2 * channels


def _normalisation(stream: memoryview, shape: Pair, model: VaeformerModel, *, own: bool) -> tuple[Normalisation, int]:
    """Return what the fields of `shape` (T, C) are normalised with, and how many bytes of the stream say so."""
    if own:
        return read_normalisation(stream, shape)
    channels = model.channels
    return Normalisation(np.broadcast_to(channels.mean, shape), channels.deviation, False), 0


def _write(writer: SymbolWriter, model: VaeformerModel, hour: Hour, scale: NDArray[np.int16]) -> None:
    for c, z in enumerate(hour.hyper):
        # What is usual depends on the step: a middle for each channel of each hour.
        usual = int(np.median(z).clip(-OFFSET_MAX + model.hyper_centre[c], OFFSET_MAX + model.hyper_centre[c]))
        writer.symbol(usual - int(model.hyper_centre[c]) + OFFSET_MAX, offset_model(True))
        writer.phase(z.ravel() - usual, *model.hyper_tables(c, z.size))
    for c, y in enumerate(hour.symbols):
        writer.phase(y.ravel(), scale[c].ravel(), np.full(y.size, model.tails[c]))


def _read(reader: SymbolReader, model: VaeformerModel, shape: Pair, index: int, periodic: bool) -> Hour:
    grid, hyper_grid = model.grids(shape)
    hyper = np.empty((len(model.hyper_centre), *hyper_grid), np.int32)
    for c, z in enumerate(hyper):
        usual = model.hyper_centre[c] + reader.symbol(offset_model(True)) - OFFSET_MAX
        z.ravel()[:] = reader.phase(*model.hyper_tables(c, z.size)) + usual
    if np.abs(hyper).max() > HYPER_MAX:
        raise CorruptPayloadError(f"a hyper-latent of {np.abs(hyper).max()} is beyond the allowed {HYPER_MAX}")
    scale = model.scale_indexes(hyper, index, shape, periodic)
    symbols = np.empty((len(model.tails), *grid), np.int32)
    for c, y in enumerate(symbols):
        y.ravel()[:] = reader.phase(scale[c].ravel(), np.full(y.size, model.tails[c]))
    if np.abs(symbols).max() > SYMBOL_MAX:
        raise CorruptPayloadError(f"a symbol of {np.abs(symbols).max()} is beyond the allowed {SYMBOL_MAX}")
    return Hour(hyper, symbols)


def _counts(model: VaeformerModel, shape: Pair) -> Iterator[int]:
    """Yield how many hyper-latents and latents an hour has."""
    (h, w), (hyper_h, hyper_w) = model.grids(shape)
    yield len(model.hyper_centre) * hyper_h * hyper_w
    yield len(model.tails) * h * w


def _means(model: VaeformerModel, hyper: I32, scale: NDArray[np.int16], step: Tensor, periodic: bool) -> Tensor:
    """Return the means (1, L, h, w) of latents: floats, which are only added to."""
    z_hat, scales = torch.from_numpy(hyper.astype(np.float32))[None], scale_of(torch.from_numpy(scale.astype("f4")))
    with torch.inference_mode():
        return model.network.hyper_decoder.means(z_hat, step, scales[None], periodic)


def _integers(x: Tensor, most: int) -> I32:
    return torch.round(torch.nan_to_num(x)).clamp(-most, most).numpy().astype(np.int32)


def _step(index: int) -> Tensor:
    return torch.tensor([step_of(index)], dtype=torch.float32)


def _checksum(hours: list[Hour]) -> bytes:
    crc = 0
    for hour in hours:
        for integers in (hour.hyper, hour.symbols):
            crc = crc32c(integers.astype("<i4", order="C").data, crc)
    return crc.to_bytes(_CRC, "little")
