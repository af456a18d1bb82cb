"""Arithmetic with subnormal numbers as IEEE 754 has it, whatever another library has made of the thread.

Loading a library that was linked with -ffast-math (a wheel of SZ3, for one) lets its thread, and those it starts later,
take subnormal numbers for zero. The same array would then become other bytes, and a bound on subnormal values would be
checked on zeros. C99, 7.6 has the calls; x86 and ARM keep the switch in what they save.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

_NBYTES = 256  # more than any fenv_t


class _Calls(NamedTuple):
    library: ctypes.PyDLL
    default: ctypes.c_void_p


@contextmanager
def subnormal_numbers() -> Iterator[None]:
    """Let the calling thread round as usual, to nearest and subnormal, and be as it was afterwards."""
    calls = _calls()
    if calls is None:
        yield
        return
    before = ctypes.create_string_buffer(_NBYTES)
    calls.library.fegetenv(before)
    calls.library.fesetenv(calls.default)
    try:
        yield
    finally:
        calls.library.fesetenv(before)


@cache
def _calls() -> _Calls | None:
    """Return the C library's calls; None where it does not name its default (Windows)."""
    if sys.platform == "win32":
        return None
    library = ctypes.PyDLL(None)  # keeps the GIL: the switch is the thread's
    if not hasattr(library, "fesetenv"):
        return None
    if sys.platform == "darwin":
        return _Calls(library, ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, "_FE_DFL_ENV"))))
    return _Calls(library, ctypes.c_void_p(-1))
