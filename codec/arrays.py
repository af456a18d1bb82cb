"""Arrays that one thread uses again and again: page faults of fresh ones cost more than the work done in them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_THREAD = threading.local()


class Scratch:
    """Named buffers that grow to the largest size asked for; their content does not outlive the next request."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.generic]] = {}

    @classmethod
    def of_thread(cls) -> Scratch:
        """Return the calling thread's own scratch."""
        if not hasattr(_THREAD, "scratch"):
            _THREAD.scratch = cls()
        scratch: Scratch = _THREAD.scratch
        return scratch

    def array(self, name: str, dtype: DTypeLike) -> Callable[..., NDArray[Any]]:
        """Return a function from a shape to the uninitialised array `name` of that shape."""

        def shaped(*shape: int) -> NDArray[Any]:
            size = math.prod(shape)
            if name not in self._buffers or self._buffers[name].size < size:
                self._buffers[name] = np.empty(size, dtype)
            return self._buffers[name][:size].reshape(shape)

        return shaped
