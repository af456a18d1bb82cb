"""isopress as a numcodecs codec: the compressor slot of Zarr v2, kerchunk and other users of numcodecs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_ndarray, ndarray_copy

from isopress.codec.errors import ArgumentError
from isopress.codec.threads import IMPORTS
from isopress.format.payload import BytesLike, PayloadInfo, parse
from isopress.format.settings import Settings


@dataclass(frozen=True)
class Isopress(Settings, Codec):  # type: ignore[misc]
    """Codec `isopress` of numcodecs; its settings are the keywords of `isopress.compress`.

    A bound holds for every chunk by itself: `mode="range"` refers to the values of one chunk, with the fill
    value that pads chunks at an edge unless that is NaN. For xarray write
    `encoding={name: {"compressors": [codec]}}`.

    Examples
    --------
    >>> import numcodecs, numpy
    >>> codec = numcodecs.get_codec({"id": "isopress", "mode": "lossless"})
    >>> codec.decode(codec.encode(numpy.zeros((2, 3), "f4"))).shape
    (2, 3)
    """

    codec_id: ClassVar[str] = "isopress"

    def encode(self, buf: Any) -> bytes:
        """Return the payload of `buf`, an array of any number of axes (or, when lossless, any buffer).

        Raises
        ------
        ArgumentError
            `buf` holds no floats and the mode is not lossless, as after a filter that returns bytes.
        """
        with IMPORTS:  # not before there is something to encode
            from isopress.format import rewrites

        array = buf if isinstance(buf, np.ndarray) else ensure_ndarray(buf)
        return rewrites.encode(array, self)

    def decode(self, buf: BytesLike, out: Any = None) -> Any:
        """Return the array of the payload `buf`, or fill `out` with it.

        Parameters
        ----------
        buf : bytes-like
        out : ndarray or writable buffer, optional
            Of the size of the decoded array, and of its dtype (with byte order) or plain bytes. An `out`
            of another shape gets the values in memory order.

        Raises
        ------
        PayloadError
            `buf` is damaged, foreign, cut short or too new.
        ArgumentError
            `out` has another size or dtype than the decoded array.
        """
        with IMPORTS:
            from isopress.format import api, rewrites

        parsed = parse(buf)
        target = None if out is None else ensure_ndarray(out)
        if target is not None:
            _check_target(target, parsed.info)
        array = api.decode(parsed)
        rewrites.remember(parsed, array, self)
        if target is None:
            return array
        if target.shape != array.shape:
            return ndarray_copy(array, target)
        np.copyto(target, array)
        return out

    def get_config(self) -> dict[str, Any]:
        """Return the settings that differ from the default, as JSON values."""
        return {"id": self.codec_id, **self.to_config()}


def _check_target(target: np.ndarray[Any, Any], info: PayloadInfo) -> None:
    plain_bytes = target.dtype.itemsize == 1 and target.dtype.kind in "uiSV"
    if target.nbytes != info.original_nbytes or not (plain_bytes or target.dtype == info.dtype):
        raise ArgumentError(
            f"out has {target.nbytes} bytes of {target.dtype.str}; the payload decodes to "
            f"{info.original_nbytes} bytes of {info.dtype.str}"
        )
    if not target.flags.writeable:
        raise ArgumentError("out is read-only; give a writable buffer")
