"""Fields <-> the latent section: transforms along the leading axes, latents, synthesis.

fields --offset, step--> steps --Mixing--> channels --wavelet--> latents --contexts--> section
values <--step, offset-- steps <--Mixing-- channels <--synthesis-- decoded latents <---'
"""

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
from isopress.codec.latent.coefficients import TRADE, Latents, Units, decode, encode
from isopress.codec.latent.context_features import UNITS
from isopress.codec.latent.decorrelation import IDENTITY, MAX_AXIS, Mixing, channel_order, choose, identity
from isopress.codec.latent.halvings import choose_ahead, part_seen, read_ahead, write_ahead
from isopress.codec.latent.reduced_grid import Blocks, levels
from isopress.codec.latent.spectral_gain import GAINS, ONE_OCTAVE, equalise, find_gains
from isopress.codec.latent.weights import LatentModel

F64 = NDArray[np.float64]
Reals = NDArray[np.floating[Any]]

MAX_FIELDS = 4096
LEAST_SIDE = 16  # fields with a shorter side are left to the wavelet alone
WORTH_GAINS = 1000  # bytes of a section that gains are added to
_HEAD = struct.Struct("<Bdd")  # flags, step, offset
ROWS = 64  # that a checksum takes at a time
_CRC = 4  # bytes at the end: CRC32C of the decoded latents
_PERIODIC, _CORRECTED, _AHEAD = 1, 2, 32
_GAINS = 4 | 16  # both or none
_ALWAYS = 8
_KNOWN = _PERIODIC | _CORRECTED | _GAINS | _ALWAYS | _AHEAD


@dataclass(frozen=True)
class Latent:
    """How fields are to be coded: step and offset in data units, whether longitude is periodic, and whether synthesis
    corrects what the wavelet gives."""

    step: float
    offset: float
    periodic: bool
    corrected: bool = True


@dataclass(frozen=True, eq=False)
class CodedFields:
    """A section, and what its latents decode to: channels (h, w) in units, in coding order, which are large and given
    away once; gains in octaves."""

    section: bytes
    shape: tuple[int, ...]
    decoded: list[Units]
    mixings: tuple[Mixing, ...]
    latent: Latent
    model: LatentModel

    def in_steps(self) -> F64:
        """Return decoded fields (..., h, w) in steps: synthesis and inverse transforms; uses up what was decoded."""
        kept = list[int]()
        for mixing in self.mixings:
            kept.append(len(mixing.rows))
        correction, periodic, channels = self.model.correction, self.latent.periodic, np.empty(0)
        for i in channel_order(kept):
            units, found = self.decoded.pop(0), None
            if self.latent.corrected and units.any():
                found = correction.corrections(units, periodic)
            if not channels.size:  # the first correction takes more memory than all that follows
                channels = np.empty((prod(kept), *units.shape))
            np.multiply(units, 1 / UNITS, out=channels[i])  # exact: a power of two
            if found is not None:
                correction.add(channels[i], found, periodic)
        fields = channels.reshape(*kept, *channels.shape[1:])
        for axis, mixing in enumerate(self.mixings):
            fields = mixing.inverse(fields, axis)
        return fields

    def values(self, fields: F64, gains: F64 | None = None) -> F64:
        """Return fields in steps as values (..., h, w), after gains in octaves if there are any; uses up the fields."""
        if gains is not None:
            equalise(fields, gains, self.latent.periodic)
        with np.errstate(over="ignore"):  # beyond the largest float: the caller clips
            fields *= self.latent.step
            fields += self.latent.offset
        return fields.reshape(self.shape)

    def fields(self) -> F64:
        """Return the decoded values (..., h, w); uses up what was decoded."""
        return self.values(self.in_steps())

    def equalised(self, original: Reals) -> tuple[bytes, F64]:
        """Return section and decoded values with the gains that give these the power of the original (..., h, w)."""
        fields, section, gains = self.in_steps(), self.section, None
        if self.latent.corrected and len(section) >= WORTH_GAINS:
            wanted = steps_of(original.reshape(fields.shape), self.latent)
            gains = find_gains(wanted, fields, self.latent.periodic)
            del wanted
        if gains is None:
            return section, self.values(fields)
        section = bytes([section[0] | _GAINS]) + section[1 : _HEAD.size] + gains.tobytes() + section[_HEAD.size :]
        return section, self.values(fields, gains / ONE_OCTAVE)


@dataclass(frozen=True, eq=False)
class Layout:
    """How fields become channels and levels: a transform per leading axis, halvings ahead of each block of rows."""

    mixings: tuple[Mixing, ...]
    ahead: tuple[int, ...]

    @classmethod
    def of(cls, fields: Reals, latent: Latent) -> Layout:
        """Choose what suits fields (..., h, w) best at one step."""
        fields = fields.reshape(coded_shape(fields.shape))
        if prod(fields.shape[:-2]) == 1:  # nothing is shared: a part of the field is enough
            mixings = tuple(identity(1) for _ in fields.shape[:-2])
            return cls(mixings, choose_ahead(steps_of(part_seen(fields), latent)))
        y = steps_of(fields, latent)
        mixings = choose(y, 1.0)
        for axis, mixing in enumerate(mixings):
            y = mixing.forward(y, axis)
        return cls(mixings, choose_ahead(part_seen(y)))

    def of_part(self, height: int, width: int) -> Layout:
        """Return the layout of some columns of those fields."""
        blocks = Blocks.of(height, width)
        ahead = tuple(min(times, blocks.most) for times in self.ahead)
        return Layout(self.mixings, ahead if len(ahead) == blocks.count else ())


def steps_of(fields: Reals, latent: Latent) -> F64:
    """Return fields (..., h, w) in steps, as a new array."""
    y: F64 = np.subtract(fields, latent.offset, dtype=np.float64)
    y /= latent.step
    return y


def code_fields(
    fields: Reals,
    latent: Latent,
    model: LatentModel,
    *,
    mixings: tuple[Mixing, ...] | None = None,
    ahead: tuple[int, ...] | None = None,
    trade: float = TRADE,
) -> CodedFields:
    """Code fields (..., h, w) at one step; their values are left to be decoded when somebody asks.

    mixings : one transform per leading axis; chosen for these fields if left out.
    ahead : how often each block of rows is halved in longitude ahead of latitude; chosen likewise.
    """
    shape, fields = fields.shape, fields.reshape(coded_shape(fields.shape))
    leading, (h, w) = fields.shape[:-2], fields.shape[-2:]
    y = steps_of(fields, latent)
    mixings = choose(y, 1.0) if mixings is None else mixings
    for axis, mixing in enumerate(mixings):
        y = mixing.forward(y, axis)
    ahead = choose_ahead(part_seen(y)) if ahead is None else ahead
    split = levels(h, w, latent.periodic, ahead)
    latents: NDArray[Any] = np.empty(leading, object)
    for at in np.ndindex(leading):
        latents[at] = Latents.of(y[at], split, np.float32, used_up=True)  # all that coding looks at
    del y  # as large as everything that follows
    latents, mixings = _without_empty(latents, mixings)
    writer = SymbolWriter(peaked=True)
    for mixing, n in zip(mixings, leading, strict=True):
        if n > 1:
            mixing.write(writer)
    if any(ahead):
        write_ahead(writer, ahead)
    channels = list(latents.ravel()[channel_order(latents.shape)])
    decoded = encode(writer, channels, split, model.contexts, trade)
    corrected = latent.corrected and min(h, w) >= LEAST_SIDE
    flags = _PERIODIC * latent.periodic | _CORRECTED * corrected | _ALWAYS | _AHEAD * any(ahead)
    section = _HEAD.pack(flags, latent.step, latent.offset) + writer.finish() + _checksum(decoded)
    return CodedFields(section, shape, decoded, mixings, replace(latent, corrected=corrected), model)


def decode_fields(section: bytes, shape: tuple[int, ...], model: LatentModel) -> F64:
    """Return the fields (..., h, w) of a section.

    Raises
    ------
    CorruptPayloadError, TruncatedPayloadError
        The section is damaged.
    """
    whole, shape = shape, coded_shape(shape)
    h, w = shape[-2:]
    latent, gains = _read_head(section)
    start = _HEAD.size + (0 if gains is None else GAINS)
    reader = SymbolReader(memoryview(section)[start:-_CRC], peaked=True)
    mixings, count = list[Mixing](), 1
    for n in shape[:-2]:
        mixings.append(Mixing.read(reader, n) if n > 1 else identity(1))
        count *= len(mixings[-1].rows)
    split = levels(h, w, latent.periodic, read_ahead(reader, h, w) if section[0] & _AHEAD else ())
    decoded = decode(reader, count, split, split[-1].low.shape if split else (h, w), model.contexts)
    reader.finish()
    if section[-_CRC:] != _checksum(decoded):
        raise CorruptPayloadError("the decoded latents do not have the checksum that was stored with them")
    coded = CodedFields(section, whole, decoded, tuple(mixings), latent, model)
    return coded.values(coded.in_steps(), gains)


def _read_head(section: bytes) -> tuple[Latent, F64 | None]:
    """Return how fields were coded, and their gains in octaves."""
    flags = section[0] if section else 0
    count = GAINS if flags & _GAINS else 0
    least = _HEAD.size + count + _CRC
    if len(section) < least:
        raise TruncatedPayloadError(f"the latent section has {len(section)} bytes, at least {least} are needed")
    flags, step, offset = _HEAD.unpack_from(section)
    known = not flags & ~_KNOWN and flags & _ALWAYS and flags & _GAINS in (0, _GAINS)
    if not known or not (np.isfinite(step) and np.isfinite(offset) and step > 0):
        raise CorruptPayloadError(f"the latent section has flags {flags}, step {step} and offset {offset}")
    gains = np.frombuffer(section, np.int8, count, _HEAD.size) / ONE_OCTAVE if count else None
    return Latent(step, offset, bool(flags & _PERIODIC), bool(flags & _CORRECTED)), gains


def coded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that fields of `shape` are coded as: those of very long axes as the rows of one field."""
    leading = shape[:-2]
    if max(leading, default=1) <= MAX_AXIS and prod(leading) <= MAX_FIELDS:
        return shape
    return prod(leading), shape[-2] * shape[-1]


def _without_empty(latents: NDArray[Any], mixings: tuple[Mixing, ...]) -> tuple[NDArray[Any], tuple[Mixing, ...]]:
    """Leave out, at the end of each axis, channels of which nothing is worth coding."""
    full = np.empty(latents.shape, bool)
    for at in np.ndindex(latents.shape):
        full[at] = not latents.item(*at).is_empty
    shortened = []
    for axis, mixing in enumerate(mixings):
        used = np.flatnonzero(full.any(tuple(k for k in range(full.ndim) if k != axis)))
        m = latents.shape[axis] if mixing.kind == IDENTITY else int(used.max(initial=0)) + 1
        latents = np.take(latents, range(m), axis)
        shortened.append(replace(mixing, rows=mixing.rows[:m]))
    return latents, tuple(shortened)


def _checksum(decoded: Sequence[Units]) -> bytes:
    crc = 0
    for units in decoded:
        for start in range(0, len(units), ROWS):
            crc = crc32c(units[start : start + ROWS].astype("<i8", order="C").data, crc)
    return crc.to_bytes(_CRC, "little")
