"""The front door: arrays <-> payload bytes. The only place where codec and payload meet."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isopress.codec.chunk import decode_chunk, encode_chunk
from isopress.codec.encoded import EncodedChunk
from isopress.codec.errors import ArgumentError
from isopress.format import payload
from isopress.format.payload import BytesLike, PayloadInfo, inspect
from isopress.format.settings import Settings

__all__ = ["PayloadInfo", "compress", "decompress", "inspect"]

Array = NDArray[Any]


def compress(
    x: ArrayLike,
    *,
    mode: str = "abs",
    bound: float | None = None,
    floor: float | None = None,
    model: str = "default",
) -> bytes:
    """Return `x` as a payload that decodes to within `bound` of every value, NaN and inf exactly.

    Parameters
    ----------
    x : array_like, 0 to 32 axes
        float32 or float64; also float16, integers and bool when `mode` is "lossless". The last two axes
        are coded as a (lat, lon) field, leading axes field by field. C or Fortran order and byte
        order come back as given; other strides come back in C order.
    mode : {"abs", "range", "pointwise", "lossless"}
        What `bound` limits: |error| in the unit of `x`, as a fraction of max(x) - min(x), as a
        fraction of each |x|, or nothing (bit-exact).
    bound : float, optional
        Finite and > 0; required unless `mode` is "lossless".
    floor : float, optional
        In the unit of `x`, > 0, "pointwise" only: an absolute error that is allowed everywhere.
    model : str
        Name or sha256 of the weights.

    Raises
    ------
    ArgumentError
        `x` has a dtype, size or kind that cannot be stored, or the bound is not one.
    ModelNotFoundError
        `model` is not installed.
    """
    settings = Settings(mode, bound, floor, model)
    array = _as_array(x)
    settings.check(array.dtype, array.shape)
    native = np.asarray(array, array.dtype.newbyteorder("="), order="C")
    encoded = encode_chunk(native, settings.limit, model=model)
    info = PayloadInfo(
        dtype=array.dtype,
        shape=array.shape,
        order="F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C",
        mode=settings.mode,
        bound=settings.bound,
        floor=settings.floor,
        method=encoded.method,
        models=tuple(model.hex() for model in encoded.models),
        resolved_bound=encoded.resolved_bound,
        max_error=encoded.max_error,
        rmse=encoded.rmse,
    )
    return payload.pack(info, encoded.sections)


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
    info, sections = payload.unpack(buf)
    encoded = EncodedChunk(
        method=info.method,
        sections=sections,
        models=tuple(bytes.fromhex(model) for model in info.models),
        resolved_bound=info.resolved_bound,
        max_error=info.max_error,
        rmse=info.rmse,
    )
    array = decode_chunk(encoded, info.dtype.newbyteorder("="), info.shape)
    return np.asarray(array, info.dtype, order=info.order)


def _as_array(x: ArrayLike) -> Array:
    if isinstance(x, np.ma.MaskedArray):
        raise ArgumentError("masked arrays cannot be stored; fill the mask with NaN: x.filled(numpy.nan)")
    return np.asarray(x)
