"""Writing a part of a chunk: Zarr reads it, changes some values and hands all of them over to be coded again.

Coding decoded values again adds an error of its own each time. So what this process decoded is remembered for a while,
by checksums of rows and columns; a chunk that has some of it left is stored as what it was with layers over it.

    decode -> remember          encode -> recall -> the same bits as before where nothing changed, layers elsewhere
"""

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import default_rng  # here: numpy would load it under a lock that a fork may leave locked
from numpy.typing import NDArray

from isopress.codec.chunk.final_values import FLOATS, field_shape
from isopress.codec.encoded import Method, Section
from isopress.codec.errors import BoundError
from isopress.codec.limits import Bound, Target, exceeds
from isopress.format import api, payload
from isopress.format.decode_cache import nothing_kept
from isopress.format.layers import MAX_LAYERS, Layer, bits_of, bounding_box, read_layers, with_hole, write_layers
from isopress.format.payload import Payload
from isopress.format.settings import Settings

Array = NDArray[Any]

MAX_NBYTES = 2**27  # of payloads and checksums that are remembered, the latest always
_WATCHED: ContextVar[bool] = ContextVar("isopress_rewrites", default=True)
_EXPECTED: ContextVar[bool] = ContextVar("isopress_partial_writes_expected", default=False)


class PartialWriteWarning(UserWarning):
    """A chunk was written in part, which costs bytes and time."""


@contextmanager
def whole_chunks() -> Iterator[None]:
    """Neither remember, recall nor keep in here: for those who always write whole chunks, and read them to compare."""
    with _set(_WATCHED, False), nothing_kept():
        yield


@contextmanager
def expected() -> Iterator[None]:
    """Warn of nothing in here: for those who write in part on purpose."""
    with _set(_EXPECTED, True):
        yield


@contextmanager
def _set(variable: ContextVar[bool], value: bool) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def remember(parsed: Payload, x: Array, settings: Settings, *, to_write: bool = False) -> None:
    """Remember that a payload decoded to all of `x`; `to_write` says that Zarr does so only to change a part of it."""
    # What was decoded without an error may be coded again: what comes out is within the bound of what once was.
    if _WATCHED.get() and parsed.info.max_error and _applies(x, settings):
        MEMORY.add(parsed, x, settings, to_write=to_write)


def encode(x: Array, settings: Settings) -> bytes:
    """Return `x` as a payload; values that `remember` knows at their place keep all their bits.

    Raises as `api.encode` does, and BoundError when values that were not changed would be, which is a bug.
    """
    if _WATCHED.get() and len(MEMORY) and _applies(x, settings) and (known := MEMORY.recall(x, settings)) is not None:
        return _changed(known, x, settings)
    return api.encode(x, settings)


def _applies(x: Array, settings: Settings) -> bool:
    """Whether coding decoded values again would add an error, and leave bytes to choose."""
    limit = settings.limit
    lossless = isinstance(limit, Bound) and limit.mode == "lossless"
    by_ratio = isinstance(limit, Target) and limit.ratio is not None
    return x.dtype.newbyteorder("=") in FLOATS and x.size > 0 and not lossless and not by_ratio


def _changed(known: bytes, x: Array, settings: Settings) -> bytes:
    """Return `x` as the payload `known` with a layer for all that differs from what it decodes to."""
    native = np.require(x, x.dtype.newbyteorder("="), ["C", "A"])
    base = payload.parse(known)
    differs = bits_of(native) != bits_of(_native(api.decode(base)))
    if not differs.any():
        return known
    if not _EXPECTED.get():
        warnings.warn(
            "a chunk was written in part: what was not written keeps its values, but the chunk grows with each such "
            "write. Write whole chunks, or append with `isopress append`",
            PartialWriteWarning,
            stacklevel=2,
        )
    layers = [layer for layer, _ in read_layers(base)] if base.info.method == Method.LAYERS else []
    layers = layers or [Layer(known, (0,) * x.ndim)]
    packed = _packed(_with_layer(layers, native, differs, settings), x, settings)
    kept = ~differs
    if not np.array_equal(bits_of(native)[kept], bits_of(_native(api.decode(payload.parse(packed))))[kept]):
        raise BoundError("values that were not written did not come back as they were; please report this")
    return packed


def _with_layer(layers: list[Layer], x: Array, differs: Array, settings: Settings) -> list[Layer]:
    """Return the layers that are not hidden, and one for what differs."""
    box = bounding_box(differs)
    part, hole = with_hole(x[box], differs[box])
    over = Layer(api.encode(part, _of_box(settings, box)), tuple(side.start for side in box), hole)
    _check(part, differs[box], over, _of_box(settings, box))
    seen = [layer for layer in layers[1:] if hole is not None or not _inside(layer, box)]
    return [layers[0], *seen, over]


def _check(part: Array, shows: Array, over: Layer, settings: Settings) -> None:
    """Raise BoundError unless what shows of a new layer keeps the bound, as a reader sees it."""
    x_hat = _native(api.decompress(over.payload))
    finite = shows & np.isfinite(part)
    limit = settings.limit
    if isinstance(limit, Target):
        return
    bounds = limit if isinstance(limit, tuple) else (limit,)
    for index, bound in enumerate(bounds):
        at = (slice(None) if len(bounds) == 1 else index, ...)
        tolerance = np.broadcast_to(bound.tolerance(np.where(shows[at], part[at], np.nan)), part[at].shape)
        if exceeds(part[at], x_hat[at], np.where(finite[at], tolerance, np.inf))[finite[at]].any():
            raise BoundError("values of a part that was written miss their bound; please report this")


def _inside(layer: Layer, box: tuple[slice, ...]) -> bool:
    sides = zip(layer.box(payload.inspect(layer.payload).shape), box, strict=True)
    return all(outer.start <= inner.start and inner.stop <= outer.stop for inner, outer in sides)


def _of_box(settings: Settings, box: tuple[slice, ...]) -> Settings:
    """Return the settings for a part of a chunk: of several bounds, those of its entries."""
    return replace(settings, bound=settings.bound[box[0]]) if isinstance(settings.bound, tuple) else settings


def _packed(layers: list[Layer], x: Array, settings: Settings) -> bytes:
    """Return the payload of layers; of a single one without loss if they are too many or larger than the values."""
    infos = [payload.inspect(layer.payload) for layer in layers]
    if len(layers) > MAX_LAYERS or sum(len(layer.payload) for layer in layers) > x.nbytes:
        exact = replace(settings, mode="lossless", bound=None, floor=None, rmse=None, effort=0, exact=())
        layers = [Layer(api.encode(x, exact), (0,) * x.ndim)]
    models = dict.fromkeys(model for layer in layers for model in payload.inspect(layer.payload).models)
    section = write_layers(layers)
    sizes = [math.prod(info.shape) for info in infos]
    squares = sum(size * info.rmse**2 for size, info in zip(sizes, infos, strict=True))
    info = payload.PayloadInfo(
        dtype=x.dtype,
        shape=x.shape,
        order=_order(x),
        method=Method.LAYERS,
        models=tuple(models),
        resolved_bound=max(info.resolved_bound for info in infos),
        max_error=max(info.max_error for info in infos),
        rmse=math.sqrt(squares / sum(sizes)),
        **api.stated(settings.limit),
    )
    return payload.pack(info, ((Section.LAYERS, section),))


def _order(x: Array) -> Any:
    return "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"


def _native(x: Array) -> Array:
    return np.require(x, x.dtype.newbyteorder("="), ["C", "A"])


# --- what was decoded -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """Checksums of every row and every column of every field, and which of them hold one number throughout, or NaN.

    A region that is written leaves rows or columns of each field as they were, unless it takes the whole field.
    """

    sums: tuple[Array, Array]
    constant: tuple[Array, Array]
    missing: tuple[Array, Array]

    @classmethod
    def of(cls, x: Array) -> "Marks":
        """Return the marks of an array of any shape."""
        fields = _native(x).reshape(field_shape(x.shape))
        bits = bits_of(fields)
        sums, constant, missing = [], [], []
        for axis, first in ((2, bits[:, :, 0]), (1, bits[:, 0])):
            weights = _weights(bits.shape[axis], bits.dtype)
            sums.append((bits * (weights if axis == 2 else weights[:, None])).sum(axis, dtype=bits.dtype))
            missing.append(np.isnan(fields).all(axis))
            constant.append((sums[-1] == first * weights.sum(dtype=bits.dtype)) | missing[-1])
        return cls(tuple(sums), tuple(constant), tuple(missing))  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return sum(array.nbytes for pair in (self.sums, self.constant, self.missing) for array in pair)

    def common(self, other: "Marks", *, constants: bool) -> int:
        """Return how many rows and columns are the same in both; those of NaN say nothing, `constants` may do."""
        total = 0
        for axis in (0, 1):
            same = self.sums[axis] == other.sums[axis]
            same &= ~(self.missing if constants else self.constant)[axis]
            total += int(np.count_nonzero(same))
        return total


def _weights(length: int, dtype: np.dtype[Any]) -> Array:
    """Return odd numbers without a pattern, always the same."""
    return default_rng(length).integers(0, 2**31, length).astype(dtype) * 2 + 1


@dataclass(frozen=True)
class _Kind:
    """What payloads must have in common with an array that may be one of them with a part changed."""

    settings: Settings
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str


@dataclass(frozen=True)
class _Decoded:
    """A payload, marks of what it decodes to, its size with them, and whether it was read to be changed."""

    payload: bytes
    kind: _Kind
    marks: Marks
    nbytes: int
    to_write: bool


Stack = tuple[list[_Decoded], list[Array]]  # what is known of a kind, and a row of checksums of each: rows, columns


class Memory:
    """Payloads decoded lately, the latest always, the others while they take less than a limit."""

    def __init__(self, limit: int = MAX_NBYTES) -> None:
        self._limit = limit
        self.clear()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def nbytes(self) -> int:
        """What is remembered occupies so much."""
        return self._nbytes

    def clear(self) -> None:
        """Forget all, and the lock that a thread of a forked process's parent may have held."""
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Decoded] = OrderedDict()
        self._stacks: dict[_Kind, Stack] = {}
        self._nbytes = 0

    def add(self, parsed: Payload, x: Array, settings: Settings, *, to_write: bool) -> None:
        """Remember that a payload decoded to all of `x`."""
        info, data, marks = parsed.info, bytes(parsed.data), Marks.of(x)
        kind = _Kind(settings, info.shape, info.dtype, info.order)
        with self._lock:
            if old := self._known.pop(data, None):
                self._nbytes -= old.nbytes
                self._stacks.pop(old.kind, None)
                to_write |= old.to_write
            found = _Decoded(data, kind, marks, len(data) + marks.nbytes, to_write)
            self._known[data] = found
            self._nbytes += found.nbytes
            self._stacks.pop(kind, None)
            while self._nbytes > self._limit and len(self._known) > 1:
                _, oldest = self._known.popitem(last=False)
                self._nbytes -= oldest.nbytes
                self._stacks.pop(oldest.kind, None)

    def recall(self, x: Array, settings: Settings) -> bytes | None:
        """Return the payload, coded with the same settings, that has most rows and columns of `x`; None if none has."""
        kind = _Kind(settings, x.shape, x.dtype, _order(x))
        with self._lock:
            if kind not in self._stacks:
                known = [each for each in self._known.values() if each.kind == kind]
                if not known:
                    return None
                sums = [np.stack([each.marks.sums[axis].reshape(-1) for each in known]) for axis in (0, 1)]
                self._stacks[kind] = known, sums
            known, sums = self._stacks[kind]
        marks = Marks.of(x)
        # Of thousands of chunks few have a checksum in common with this one: all are asked at once.
        alike = np.zeros(len(known), bool)
        for stack, mine in zip(sums, marks.sums, strict=True):
            alike |= (stack == mine.reshape(-1)).any(1)
        candidates = [known[i] for i in np.flatnonzero(alike)]
        counts = [each.marks.common(marks, constants=each.to_write) for each in candidates]
        best = max(range(len(counts)), key=lambda i: (counts[i], i), default=None)  # the latest of those alike
        return candidates[best].payload if best is not None and counts[best] else None


MEMORY = Memory()
if hasattr(os, "register_at_fork"):  # a child has no thread that could release a lock it inherits
    os.register_at_fork(after_in_child=MEMORY.clear)
