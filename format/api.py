"""The front door: arrays <-> payload bytes. The only place where codec and payload meet."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy import ma  # numpy's own lazy import would hold a lock across a fork
from numpy.typing import ArrayLike, NDArray

from isopress.codec.bounded.choice import ContextMode
from isopress.codec.chunk.decode import ChunkDecoder
from isopress.codec.chunk.encode import encode_chunk
from isopress.codec.encoded import EncodedChunk, Method
from isopress.codec.errors import ArgumentError
from isopress.codec.float_environment import subnormal_numbers
from isopress.codec.limits import Target
from isopress.codec.models.registry import NamedModel
from isopress.codec.threads import IMPORTS, slot
from isopress.format import payload
from isopress.format.decode_cache import CACHE, keeping
from isopress.format.layers import LayeredDecoder
from isopress.format.payload import BytesLike, Payload, PayloadInfo, inspect
from isopress.format.settings import Limit, Settings

__all__ = ["PayloadInfo", "compress", "decompress", "inspect"]

Array = NDArray[Any]

_TOKENS = 48  # bytes of a grid cell, however many channels it has

_KEPT = (
    Method.BLOCK,
    Method.LATENT,
    Method.BASED,
    Method.LAYERS,
    Method.VAEFORMER,
    Method.ON_VAEFORMER,
)  # in the decode cache: else every field costs a decode of many


class TargetMissedWarning(UserWarning):
    """A payload has not the ratio, or its values not the error, that was asked for; its header says so too."""


def compress(
    x: ArrayLike,
    *,
    mode: str = "abs",
    bound: float | Sequence[float] | None = None,
    floor: float | None = None,
    model: str = "default",
    context: ContextMode = "auto",
    ratio: float | None = None,
    rmse: float | None = None,
    effort: int = 0,
    exact: Sequence[float] = (),
    channels: Sequence[str] = (),
) -> bytes:
    """Return `x` as a payload that decodes to within `bound` of every value, NaN and inf exactly.

    In mode "latent" no error is bounded: the payload has the `ratio`, or the decoded values the `rmse`, that is
    asked for, within 3 %. Where that cannot be, a TargetMissedWarning and `inspect(payload).missed` say so.

    Parameters
    ----------
    x : array_like, 0 to 32 axes
        float32 or float64; also float16, integers and bool when `mode` is "lossless". The last two axes
        are a (lat, lon) field; along the leading axes fields refer to each other. C or Fortran order and
        byte order come back as given; other strides come back in C order.
    mode : {"abs", "range", "pointwise", "lossless", "latent"}
        What `bound` limits: |error| in the unit of `x`, as a fraction of max(x) - min(x), as a
        fraction of each |x|, or nothing (bit-exact). "latent" takes a `ratio` or an `rmse` instead.
    bound : float or sequence of float, optional
        Finite and > 0; required unless `mode` is "lossless" or "latent". With mode "abs" it may be one for each entry
        of the first axis of `x`, (channel, ..., lat, lon): variables that are coded together, each in its
        own unit.
    floor : float, optional
        In the unit of `x`, > 0, "pointwise" only: an absolute error that is allowed everywhere.
    model : str
        Name or sha256 of the weights.
    context : {"auto", "field", "block"}
        Whether fields are coded with a look at their neighbours along the leading axes: where that is
        smaller, never, or wherever there are any. Not for mode "latent".
    ratio : float, optional
        Mode "latent": bytes of `x` over bytes of the payload, finite and > 1. What is too small or too strange
        for it takes as few bytes as it can; what is smaller without loss is exact.
    rmse : float, optional
        Mode "latent": root mean square error over the finite values, in the unit of `x`, finite and > 0.
    effort : int
        Mode "latent": how long to look for symbols that cost less, 0 (quickest) to 4.
    exact : sequence of float
        Values that stand for something else, such as -9999 for missing: they come back bit by bit, in no range.
    channels : sequence of str
        With a VAEformer's weights of several channels: what the axis before the last two holds, such as
        ["u10", "t850"], if that is not the order of the weights.

    Raises
    ------
    ArgumentError
        `x` has a dtype, size or kind that cannot be stored, the bound or target is not one or not for `mode`, or
        there are several bounds that do not fit the first axis.
    ModelNotFoundError
        `model` is not installed.
    """
    settings = Settings(mode, bound, floor, model, context, ratio, rmse, effort, exact, channels)
    info, data = _encoded(x, settings)
    if mode == "latent" and (missed := replace(info, nbytes=len(data)).missed):
        warnings.warn(f"the target is missed by more than 3 %: {missed}", TargetMissedWarning, stacklevel=2)
    return data


def encode(x: ArrayLike, settings: Settings) -> bytes:
    """Return `x` as a payload, as `compress` does with these settings; any strides, alignment and byte order."""
    return _encoded(x, settings)[1]


@subnormal_numbers()
def _encoded(x: ArrayLike, settings: Settings) -> tuple[PayloadInfo, bytes]:
    """Return the payload of `x`, and what its header says but for its size."""
    if isinstance(x, ma.MaskedArray):
        raise ArgumentError("masked arrays cannot be stored; fill the mask with NaN: x.filled(numpy.nan)")
    array = np.asarray(x)
    settings.check(array.dtype, array.shape)
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    limit, model = settings.limit, NamedModel(settings.model, tuple(settings.channels))
    coded = native if isinstance(limit, tuple) else native.reshape(payload.without_trailing_ones(native.shape))
    if isinstance(limit, Target):
        with IMPORTS:
            from isopress.codec.chunk.encode_target import encode_target

        with slot():
            encoded = encode_target(coded, limit, model=model, effort=settings.effort)
    else:
        with slot():
            encoded = encode_chunk(coded, limit, model=model, context=cast(ContextMode, settings.context))
    info = PayloadInfo(
        dtype=array.dtype,
        shape=array.shape,
        order="F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C",
        method=encoded.method,
        models=tuple(map(bytes.hex, encoded.models)),
        resolved_bound=encoded.resolved_bound,
        max_error=encoded.max_error,
        rmse=encoded.rmse,
        **stated(limit),
    )
    return info, payload.pack(info, encoded.sections)


def decompress(buf: BytesLike) -> Array:
    """Return the array of a payload: the dtype, byte order, shape and memory order `compress` got.

    Raises
    ------
    PayloadError
        `buf` is damaged, foreign, cut short or too new; the subclasses of the error say which.
    ModelNotFoundError
        The payload needs weights that are not installed.
    ArgumentError
        `buf` is not contiguous bytes.
    """
    return decode(payload.parse(buf))


@subnormal_numbers()
def decode(parsed: Payload, selection: Any = ()) -> Array:
    """Return `decompress(...)[selection]` of a payload, decoding as few fields as that takes.

    Fields of a block stay in the decode cache for whoever asks for them, or for their neighbours, next; so do those of
    latents, which only decode as a whole.

    Parameters
    ----------
    parsed : Payload
    selection : tuple
        Of integers, slices and integer arrays; any other selection numpy understands costs every field.

    Raises
    ------
    IndexError
        The array has no such place. Otherwise as `decompress`.
    """
    info = parsed.info
    whole = isinstance(selection, tuple) and not selection
    fields = None if whole or info.coded_shape != info.shape else _touched(info.shape, selection)
    # Whatever no later read can find in the cache, or looks for there, is not copied out of it.
    findable = info.method in _KEPT and not (whole and _decoder_nbytes(info) > CACHE.limit)
    if not (findable and keeping()):
        with slot():
            array = np.asarray(_decoder(parsed).decode(fields).reshape(info.shape), info.dtype, order=info.order)
        return array if whole else np.array(array[selection])
    with CACHE.decoder(parsed.data, _decoder_nbytes(info), partial(_decoder, parsed)) as decoder:
        with slot():  # after the cache's lock, for which nobody waits who has a slot
            values = decoder.decode(fields).reshape(info.shape)
        return np.array(values[selection], info.dtype, order=info.order if whole else "K")


def stated(limit: Limit) -> dict[str, Any]:
    """Return what the header says of the bound or target; several bounds have a section of their own."""
    if isinstance(limit, Target):
        return {"mode": "latent", "ratio": limit.ratio, "target_rmse": limit.rmse}
    if isinstance(limit, tuple):
        return {"mode": "joint", "bound": 1.0}
    return {"mode": limit.mode, "bound": limit.value, "floor": limit.floor}


def _decoder(parsed: Payload) -> ChunkDecoder | LayeredDecoder:
    return LayeredDecoder(parsed, _chunk_decoder) if parsed.info.method == Method.LAYERS else _chunk_decoder(parsed)


def _chunk_decoder(parsed: Payload) -> ChunkDecoder:
    info = parsed.info
    encoded = EncodedChunk(info.method, parsed.sections(), tuple(map(bytes.fromhex, info.models)))
    return ChunkDecoder(encoded, info.dtype.newbyteorder("="), info.coded_shape)


def _decoder_nbytes(info: PayloadInfo) -> int:
    """Return what a decoder holds in the end: values, and the 32-bit steps that later fields refer to."""
    if info.method == Method.VAEFORMER:  # no values, but what those of all channels are made of
        return _TOKENS * math.prod((*info.shape[:-3], *info.shape[-2:]))
    if info.method == Method.ON_VAEFORMER:  # and the steps of what was coded on top
        return (_TOKENS + 4 * math.prod(info.shape[-3:-2])) * math.prod((*info.shape[:-3], *info.shape[-2:]))
    return math.prod(info.shape) * (info.dtype.itemsize + 4)


def _touched(shape: tuple[int, ...], selection: Any) -> list[int]:
    """Return the flat indices along the leading axes of the fields that hold the selected values."""
    grid = np.arange(math.prod(shape[:-2])).reshape(shape[:-2])
    known = isinstance(selection, tuple) and all(map(_is_plain, selection))
    # The axes of a selection are taken one by one or, if they are arrays, point by point: either way its first
    # parts alone say which fields are meant.
    fields: list[int] = np.unique(grid[selection[: grid.ndim]] if known else grid).tolist()
    return fields


def _is_plain(part: Any) -> bool:
    """Whether a part of a selection takes exactly one axis."""
    if isinstance(part, np.ndarray):
        return part.dtype.kind in "iu"
    return isinstance(part, (int, np.integer, slice)) and not isinstance(part, bool)
