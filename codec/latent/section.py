"""Fields <-> the latent section: transforms along the leading axes, analysis, quantised latents, synthesis."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bytes import crc32c
from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.latent.coefficients import TRADE, ContextModel, Latents, decode, encode
from isopress.codec.latent.context_features import UNITS
from isopress.codec.latent.decorrelation import IDENTITY, MAX_AXIS, Mixing, channel_order, choose, identity
from isopress.codec.latent.halvings import choose_ahead, read_ahead, write_ahead
from isopress.codec.latent.reduced_grid import zoned_levels
from isopress.codec.latent.weights import LatentModel
from isopress.codec.threads import in_turn

F64 = NDArray[np.float64]

MAX_FIELDS = 4096
LEAST_SIDE = 16  # fields with a shorter side are left to the wavelet alone
_HEAD = struct.Struct("<Bdd")  # flags, step, offset
_CRC = 4  # bytes at the end: CRC32C of the decoded latents
_PERIODIC, _CORRECTED, _EQUALISED, _ADAPTED, _FINE, _AHEAD = 1, 2, 4, 8, 16, 32
_KNOWN = _PERIODIC | _CORRECTED | _EQUALISED | _ADAPTED | _FINE | _AHEAD
GAINS = 9  # bytes that they take
WORTH_GAINS = 1000  # bytes of a section that gains are added to


@dataclass(frozen=True)
class Latent:
    """How fields are to be coded: step and offset in data units, whether longitude is periodic, and whether the
    transformers take part."""

    step: float
    offset: float
    periodic: bool
    corrected: bool = True


@dataclass(frozen=True, eq=False)
class CodedFields:
    """A section, and what its latents decode to: channels (h, w) in units, in coding order; gains in octaves."""

    section: bytes
    shape: tuple[int, ...]
    decoded: list[F64]
    kept: tuple[int, ...]
    mixings: tuple[Mixing, ...]
    latent: Latent
    model: LatentModel
    gains: F64 | None = None

    def fields(self) -> F64:
        """Return the decoded values (..., h, w)."""
        return self._values(self._in_steps())

    def equalised(self, original: F64) -> tuple[bytes, F64]:
        """Return section and decoded values with the gains that give these the power of the original (..., h, w)."""
        from isopress.codec.latent.spectral_gain import ONE_OCTAVE, find_gains

        decoded = self._in_steps()
        if not self.latent.corrected or len(self.section) < WORTH_GAINS:
            return self.section, self._values(decoded)
        wanted = (original.reshape(decoded.shape) - self.latent.offset) / self.latent.step
        gains = find_gains(wanted, decoded, self.latent.periodic)
        section = self.section
        if gains is not None:
            flags = section[0] | _EQUALISED | _FINE
            section = bytes([flags]) + section[1 : _HEAD.size] + gains.tobytes() + section[_HEAD.size :]
        return section, replace(self, gains=None if gains is None else gains / ONE_OCTAVE)._values(decoded)

    def _in_steps(self) -> F64:
        """Return decoded fields in steps: synthesis and inverse transforms."""
        h, w = self.decoded[0].shape
        channels = np.empty((prod(self.kept), h, w))
        for i, units in zip(channel_order(self.kept), self.decoded, strict=True):
            np.multiply(units, 1 / UNITS, out=channels[i])  # exact: a power of two
            if self.latent.corrected and units.any():
                self.model.transforms.synthesise(channels[i], self.latent.periodic)
        fields = channels.reshape(*self.kept, h, w)
        for axis, mixing in enumerate(self.mixings):
            fields = mixing.inverse(fields, axis)
        return fields

    def _values(self, fields: F64) -> F64:
        """Return fields in steps as values (..., h, w), with the gains if there are any; the fields are used up."""
        if self.gains is not None:
            from isopress.codec.latent.spectral_gain import equalise

            equalise(fields, self.gains, self.latent.periodic)
        with np.errstate(over="ignore"):  # beyond the largest float: the caller clips
            fields *= self.latent.step
            fields += self.latent.offset
        return fields.reshape(self.shape)


@in_turn
def encode_fields(fields: F64, latent: Latent, model: LatentModel, **choices: Any) -> tuple[bytes, F64]:
    """Code fields (..., h, w) at one step; return the section and the decoded values. Choices of `code_fields`."""
    coded = code_fields(fields, latent, model, **choices)
    return coded.section, coded.fields()


@in_turn
def code_fields(
    fields: F64,
    latent: Latent,
    model: LatentModel,
    *,
    mixings: tuple[Mixing, ...] | None = None,
    ahead: Sequence[int] | None = None,
    trade: float = TRADE,
) -> CodedFields:
    """Code fields (..., h, w) at one step; their values are left to be decoded when somebody asks.

    mixings : one transform per leading axis; chosen for these fields if left out.
    ahead : how often each block of rows is halved in longitude ahead of latitude; chosen likewise.
    """
    shape, fields = fields.shape, fields.reshape(coded_shape(fields.shape))
    y = (fields - latent.offset) / latent.step
    leading, (h, w) = fields.shape[:-2], fields.shape[-2:]
    mixings = choose(y, 1.0) if mixings is None else mixings
    for axis, mixing in enumerate(mixings):
        y = mixing.forward(y, axis)
    corrected = latent.corrected and min(h, w) >= LEAST_SIDE
    ahead = choose_ahead(y.reshape(-1, h, w)) if ahead is None else ahead
    split = zoned_levels(h, w, latent.periodic, ahead)
    latents = np.empty(leading, object)
    for at in np.ndindex(leading):
        channel = model.transforms.analyse(y[at], latent.periodic) if corrected else y[at]
        latents[at] = Latents.of(channel, split)
    latents, mixings = _without_empty(latents, mixings)
    contexts = _contexts(model, corrected)
    writer = SymbolWriter(contexts.tables, peaked=True)
    for mixing, n in zip(mixings, leading, strict=True):
        if n > 1:
            mixing.write(writer)
    if any(ahead):
        write_ahead(writer, ahead)
    order = channel_order(latents.shape)
    decoded = encode(writer, [latents.ravel()[i] for i in order], split, contexts, trade)
    flags = _PERIODIC * latent.periodic | _CORRECTED * corrected | _ADAPTED | _AHEAD * any(ahead)
    head = _HEAD.pack(flags, latent.step, latent.offset)
    section = head + writer.finish() + _checksum(decoded)
    return CodedFields(section, shape, decoded, latents.shape, mixings, replace(latent, corrected=corrected), model)


@in_turn
def decode_fields(section: bytes, shape: tuple[int, ...], model: LatentModel) -> F64:
    """Return the fields (..., h, w) of a section.

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        The section is damaged.
    """
    whole, shape = shape, coded_shape(shape)
    latent, gains, stream = _parts(section)
    contexts = _contexts(model, latent.corrected)
    reader = SymbolReader(contexts.tables, stream, peaked=True)
    mixings = tuple(Mixing.read(reader, n) if n > 1 else identity(1) for n in shape[:-2])
    kept = tuple(len(m.rows) for m in mixings)
    ahead = read_ahead(reader, shape[-2], shape[-1]) if section[0] & _AHEAD else ()
    split = zoned_levels(shape[-2], shape[-1], latent.periodic, ahead)
    top = split[-1].low if split else (shape[-2], shape[-1])
    decoded = decode(reader, prod(kept), split, top, contexts, adapted=bool(section[0] & _ADAPTED))
    reader.finish()
    if section[-_CRC:] != _checksum(decoded):
        raise CorruptPayloadError("the decoded latents do not have the checksum that was stored with them")
    return CodedFields(section, whole, decoded, kept, mixings, latent, model, gains).fields()


def _parts(section: bytes) -> tuple[Latent, F64 | None, memoryview]:
    """Return how fields were coded, their gains in octaves, and the stream of symbols."""
    flags = section[0] if section else 0
    count = GAINS if flags & _EQUALISED else 0
    least = _HEAD.size + count + _CRC
    if len(section) < least:
        raise TruncatedPayloadError(f"the latent section has {len(section)} bytes, at least {least} are needed")
    flags, step, offset = _HEAD.unpack_from(section)
    if (
        flags & ~_KNOWN
        or flags & (_EQUALISED | _FINE) == _FINE
        or not (np.isfinite(step) and np.isfinite(offset) and step > 0)
    ):
        raise CorruptPayloadError(f"the latent section has flags {flags}, step {step} and offset {offset}")
    latent = Latent(step, offset, bool(flags & _PERIODIC), bool(flags & _CORRECTED))
    return latent, _octaves(section, flags) if count else None, memoryview(section)[_HEAD.size + count : -_CRC]


def _octaves(section: bytes, flags: int) -> F64:
    """Return the gains (9,) that a section holds."""
    from isopress.codec.latent.spectral_gain import ONE_OCTAVE, ONE_OCTAVE_05

    one = ONE_OCTAVE if flags & _FINE else ONE_OCTAVE_05
    return np.frombuffer(section, np.int8, GAINS, _HEAD.size) / one


def _contexts(model: LatentModel, corrected: bool) -> ContextModel:
    """Return the contexts, run by torch if it has to be loaded for the transformers."""
    return model.contexts_on_torch if corrected else model.contexts


def coded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that fields of `shape` are coded as: those of very long axes as the rows of one field."""
    leading = shape[:-2]
    if max(leading, default=1) <= MAX_AXIS and prod(leading) <= MAX_FIELDS:
        return shape
    return prod(leading), shape[-2] * shape[-1]


def _without_empty(
    latents: NDArray[np.object_], mixings: tuple[Mixing, ...]
) -> tuple[NDArray[np.object_], tuple[Mixing, ...]]:
    """Leave out, at the end of each axis, channels of which nothing is worth coding."""
    full = np.vectorize(lambda channel: not channel.is_empty, otypes=[bool])(latents)
    shortened = []
    for axis, mixing in enumerate(mixings):
        used = np.flatnonzero(full.any(tuple(k for k in range(full.ndim) if k != axis)))
        m = latents.shape[axis] if mixing.kind == IDENTITY else int(used.max(initial=0)) + 1
        latents = np.take(latents, range(m), axis)
        shortened.append(mixing.shortened(m))
    return latents, tuple(shortened)


def _checksum(decoded: list[F64]) -> bytes:
    crc = 0
    for units in decoded:
        crc = crc32c(units.astype("<i8", order="C").data, crc)
    return crc.to_bytes(_CRC, "little")
