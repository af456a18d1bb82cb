"""Which compiled kernels are in use; numpy does the same work without them.

Decided when this module is loaded: the best instruction set that the machine has, or what the environment variable
ISOPRESS_KERNELS names (numpy, generic, avx2, avx512). Every one gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NewType

from isopress.codec.errors import ArgumentError

try:
    from isopress.codec.native import _kernels
except ImportError:  # built without a compiler
    _kernels = None  # type: ignore[assignment]

kernels = _kernels  # what all faces call
VARIABLE = "ISOPRESS_KERNELS"
NUMPY = "numpy"
Kept = NewType("Kept", object)  # what the kernels checked once: geometry, a network, tables, a stream


def levels() -> tuple[str, ...]:
    """Return the names of what can be used here, best first; the last is numpy."""
    return (*(kernels.levels() if kernels else ()), NUMPY)


def _default() -> str:
    name = os.environ.get(VARIABLE) or levels()[0]
    if name not in levels():
        raise ArgumentError(f"{VARIABLE}={name}: this installation and machine have {', '.join(levels())}")
    return name


_DEFAULT = _default()
_LEVEL: ContextVar[str | None] = ContextVar("level", default=None)


def level() -> str:
    """Return the name of what is in use."""
    return _LEVEL.get() or _DEFAULT


def compiled() -> bool:
    """Return whether kernels are in use, not numpy."""
    return (_LEVEL.get() or _DEFAULT) != NUMPY


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use another level within a `with` block of this thread, as tests do."""
    token = _LEVEL.set(name)
    try:
        yield
    finally:
        _LEVEL.reset(token)


def status() -> str:
    """Return one line that says which kernels are in use."""
    if kernels is None:
        return "numpy (the compiled kernels were not built: slower, the same bytes)"
    return level() if level() != NUMPY else f"numpy ({VARIABLE} says so: slower, the same bytes)"
