"""Arrays as the codec takes them, and arrays that one thread uses again and again."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_THREAD = threading.local()


def contiguous(x: NDArray[Any]) -> NDArray[Any]:
    """Return the values of `x` as a plain array of its shape: C order, aligned, native byte order; `x` if it is one.

    Strides, alignment, byte order, read-only memory and subclasses such as memmap make no difference to a coding.
    """
    return np.require(np.asarray(x), x.dtype.newbyteorder("="), ["C", "A"]).reshape(x.shape)


class Scratch:
    """Named buffers that grow to the largest size asked for; their content does not outlive the next request.

    Page faults of fresh arrays cost more than the work done in them.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.generic]] = {}

    @classmethod
    def of_thread(cls) -> Scratch:
        """Return the calling thread's own scratch."""
        if not hasattr(_THREAD, "scratch"):
            _THREAD.scratch = cls()
        scratch: Scratch = _THREAD.scratch
        return scratch

    def array(self, name: str, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """Return the uninitialised array `name` of this shape."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, dtype)
        return self._buffers[name][:size].reshape(shape)
