"""ChunkDecoder: sections -> final values, of a whole chunk or of the fields that are wanted."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from isopress.codec.bounded import fields_alone, weights
from isopress.codec.bounded.block import BlockDecoder
from isopress.codec.chunk.final_values import (
    FLOATS,
    Overlay,
    Sections,
    assemble,
    assemble_latent,
    decode_integers,
    field_shape,
)
from isopress.codec.encoded import EncodedChunk, Method, Section, checked_sections, is_paid_for
from isopress.codec.errors import ArgumentError, CorruptPayloadError
from isopress.codec.threads import IMPORTS
from isopress.codec.values.lossless import decode_lossless
from isopress.codec.values.outliers import Exceptions, apply_exceptions, decode_exceptions, is_list
from isopress.codec.values.quantiser import Quantiser

if TYPE_CHECKING:
    from isopress.codec.vaeformer.section import FieldDecoder


class ChunkDecoder:
    """Decodes a chunk, or only the fields that are wanted, each at most once.

    Parameters
    ----------
    encoded : EncodedChunk
    dtype, shape : of the decoded chunk; fields are counted in C order of the axes before the last two.

    Raises
    ------
    UnsupportedVersionError
        A method or section this reader does not know.
    CorruptPayloadError
        Sections that are missing, foreign, damaged, or of another size than `dtype` and `shape` need.
    ModelNotFoundError
        The weights are not installed.
    """

    def __init__(self, encoded: EncodedChunk, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._dtype, self._shape = np.dtype(dtype).newbyteorder("="), shape
        self._fields = field_shape(shape)
        self._sections = checked_sections(encoded)
        self._encoded = encoded
        self._values: np.ndarray | None = None
        self._partial: _BlockFields | _VaeformerFields | _RefinedFields | None = None
        nbytes = math.prod(shape) * self._dtype.itemsize
        if encoded.method == Method.LAYERS:
            raise CorruptPayloadError("layers hold no layers, and nothing but a payload holds layers")
        if not is_paid_for(nbytes, encoded.nbytes):
            raise CorruptPayloadError(f"{encoded.nbytes} bytes claim {nbytes} bytes of values, more than any writer's")
        if encoded.method != Method.LOSSLESS and (self._dtype not in FLOATS or not nbytes):
            raise CorruptPayloadError(
                f"method {encoded.method} holds float32 or float64 values, not {self._dtype}{self._shape}"
            )

    @property
    def decoded(self) -> int:
        """Number of fields decoded so far."""
        if self._partial is not None:
            return len(self._partial.done)
        return 0 if self._values is None else self._fields[0]

    def decode(self, fields: Collection[int] | None = None) -> np.ndarray:
        """Return the values in C order and native byte order; if `fields` are named, only those are right.

        The array belongs to the decoder.
        """
        if start := _BY_FIELD.get(self._encoded.method):
            self._partial = self._partial or start(self._encoded, self._sections, self._dtype, self._shape)
            return self._partial.decode(fields).reshape(self._shape)
        if self._values is None:
            self._values = self._decode_all().reshape(self._shape)
        return self._values

    def _decode_all(self) -> np.ndarray:
        sections, method = self._sections, self._encoded.method
        if method == Method.LOSSLESS:
            return decode_lossless(sections[Section.LOSSLESS], self._dtype, math.prod(self._shape))
        if method == Method.LATENT:
            return self._decode_latent()
        v = None
        if method == Method.BASED:
            v = self._decode_pyramid_on_latents()
        elif method == Method.PYRAMID:
            model = weights.load_pyramid(self._encoded.models[0].hex())
            v = fields_alone.decode(sections[Section.PYRAMID], self._fields, model=model)
        elif method == Method.INTEGERS:
            v = decode_integers(sections[Section.INTEGERS], self._fields)
        return assemble(sections, v, self._dtype, self._fields)

    def _decode_latent(self) -> np.ndarray:
        with IMPORTS:
            from isopress.codec.latent.section import decode_fields
            from isopress.codec.latent.weights import load_latent

        shape, network = (*self._shape[:-2], *self._fields[1:]), load_latent(self._encoded.models[0].hex())
        fields = decode_fields(self._sections[Section.LATENT], shape, network)
        return assemble_latent(self._sections, fields.reshape(self._fields), self._dtype)

    def _decode_pyramid_on_latents(self) -> np.ndarray:
        with IMPORTS:
            from isopress.codec.latent import base_layer
            from isopress.codec.latent.weights import load_latent

        first, second = [model.hex() for model in self._encoded.models]
        base, refinement = load_latent(first), weights.load_pyramid(second)
        return base_layer.decode(self._sections, self._fields, self._shape[:-2], base, refinement)


def _vaeformer_decoder(sections: Sections, model: str, shape: tuple[int, ...]) -> FieldDecoder:
    with IMPORTS:
        from isopress.codec.vaeformer.section import decode_section
        from isopress.codec.vaeformer.weights import load_vaeformer

    network = load_vaeformer(model)
    try:
        network.check_shape(shape)
    except ArgumentError as error:
        raise CorruptPayloadError(str(error)) from error
    return decode_section(sections[Section.VAEFORMER], network.coded_shape(shape), network)


class _VaeformerFields:
    """The fields of a VAEformer's section, made and assembled when they are asked for; none is kept."""

    def __init__(self, encoded: EncodedChunk, sections: Sections, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.decoder = _vaeformer_decoder(sections, encoded.models[0].hex(), shape)
        self._dtype, self._shape = dtype, field_shape(shape)
        self._overlay = Overlay.read(sections, dtype, self._shape)
        self.done: set[int] = set()

    def decode(self, fields: Collection[int] | None) -> np.ndarray:
        x_hat, limits = np.zeros(self._shape, self._dtype), np.finfo(self._dtype)
        for field in range(len(x_hat)) if fields is None else fields:
            values = self.decoder.field(*divmod(field, self.decoder.shape[1]))
            at = slice(field, field + 1)
            x_hat[field] = np.clip(values, limits.min, limits.max)
            self._overlay.lay(x_hat[at], at)
            self.done.add(field)
        return x_hat


class _RefinedFields:
    """The fields of a pyramid on a VAEformer's: the integers of all are read once, the rest is made when asked for."""

    def __init__(self, encoded: EncodedChunk, sections: Sections, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        with IMPORTS:
            from isopress.codec.latent.base_layer import Rest

        first, second = [model.hex() for model in encoded.models]
        fields = field_shape(shape)
        self.decoder = _vaeformer_decoder(sections, first, shape)
        self._quantiser = Quantiser.from_bytes(sections[Section.PARAMETERS], fields[0])
        self._rest = Rest.of(sections, fields, weights.load_pyramid(second))
        self._overlay = Overlay.read(sections, dtype, fields)
        self._dtype, self._shape = dtype, fields
        self.done: set[int] = set()

    def decode(self, fields: Collection[int] | None) -> np.ndarray:
        x_hat = np.zeros(self._shape, self._dtype)
        for field in range(len(x_hat)) if fields is None else fields:
            at, quantiser = slice(field, field + 1), self._quantiser.of_field(field)
            x0 = self.decoder.field(*divmod(field, self.decoder.shape[1]))[None]
            v = self._rest.on((x0 - quantiser.offset[:, None, None]) / quantiser.step[:, None, None], at)
            x_hat[at] = quantiser.to_data(v, self._dtype)
            self._overlay.lay(x_hat[at], at)
            self.done.add(field)
        return x_hat


class _BlockFields:
    """The fields of a block, decoded and assembled as they are asked for."""

    def __init__(self, encoded: EncodedChunk, sections: Sections, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        model = weights.load_pyramid(encoded.models[0].hex())
        # First what compares the shape with the bytes.
        self.decoder = BlockDecoder(memoryview(sections[Section.BLOCK]), shape, model)
        fields = field_shape(shape)
        self._quantiser = Quantiser.from_bytes(sections[Section.PARAMETERS], fields[0])
        self._overlay = Overlay.read(sections, dtype, fields)
        self.done, self._ready = self.decoder.done, set[int]()  # decoded, some for others alone; and assembled
        self._x_hat = np.zeros(fields, dtype)
        exceptions = sections.get(Section.EXCEPTIONS)
        listed = exceptions is not None and is_list(exceptions)
        # Listed ones are those of some fields, others are corrections to all values at once.
        self._listed = decode_exceptions(exceptions, self._x_hat) if exceptions is not None and listed else None
        self._corrections = None if listed else exceptions

    def decode(self, fields: Collection[int] | None) -> np.ndarray:
        wanted = range(len(self._x_hat)) if fields is None or self._corrections is not None else fields
        new = sorted(set(wanted) - self._ready)
        if not new:
            return self._x_hat
        v = self.decoder.decode(new)
        for field in new:
            at = slice(field, field + 1)
            x_hat = self._quantiser.of_field(field).to_data(v[at], self._x_hat.dtype)
            self._overlay.lay(x_hat, at)
            self._x_hat[at] = x_hat
        if self._corrections is not None:
            apply_exceptions(self._x_hat, decode_exceptions(self._corrections, self._x_hat))
        elif self._listed is not None:
            here = np.isin(self._listed.positions // self._x_hat[0].size, new)
            apply_exceptions(self._x_hat, Exceptions(self._listed.positions[here], self._listed.bits[here]))
        self._ready.update(new)
        return self._x_hat


# What decodes single fields, by method; all others decode as a whole.
_BY_FIELD: dict[int, type[_BlockFields | _VaeformerFields | _RefinedFields]] = {
    Method.BLOCK: _BlockFields,
    Method.VAEFORMER: _VaeformerFields,
    Method.ON_VAEFORMER: _RefinedFields,
}
