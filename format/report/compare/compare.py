"""A source and its store, field by field: read, measured, thinned for maps. What is too much is sampled, and told."""

import itertools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format.report.compare import spectra
from isopress.format.report.compare.derived import Shown, derived, plain
from isopress.format.report.compare.grid import Grid, grid_of, labels
from isopress.format.report.compare.metrics import Merit, stride_for
from isopress.format.report.compare.records import CompareReport, Comparison, Frame, Zoom
from isopress.format.report.info import read_report
from isopress.format.settings import Promise
from isopress.format.source.dataset import Request, Source, located, open_source
from isopress.format.source.selection import as_request
from isopress.format.store.distortion import measure
from isopress.format.store.verify import same_part
from isopress.format.zarr.groups import arrays, open_group, stored_limit

Array = np.ndarray[Any, Any]

FIELDS = 12  # of each variable that are compared, unless the user asks for another number
FRAMES = 4  # of them that get maps
_WINDOW_VALUES = 2**22  # larger fields are cut to a window in their middle
_SCREEN = (360, 720)  # most rows and columns of a map
_ZOOM = 24  # cells around the largest error, in every direction

Index = tuple[int, ...]


@dataclass(frozen=True)
class _Sides:
    """Both sides, open, and what the store promises of each variable."""

    source: Source
    store: Source
    limits: dict[str, Promise | None]


def compare(source: str | Sequence[str] | Request, store: str, *, fields: int = FIELDS) -> CompareReport:
    """Return figures of merit of a store against its source, and what maps and spectra are drawn from.

    Of each variable up to `fields` fields are compared, evenly spread over its leading axes, and of fields of more than
    4 million values a window in the middle. `verify` is what looks at every value.

    Parameters
    ----------
    source : str, sequence of str or Request
        What the store was made of.
    store : str
        Path or URL of the store.
    fields : int
        Fields of each variable, >= 1.

    Raises
    ------
    ArgumentError
        One of them cannot be read, they have no variable with a limit in common, or `fields` is less than 1.
    """
    if fields < 1:
        raise ArgumentError(f"fields is at least 1, got {fields}")
    figures = read_report(store)
    with ExitStack() as stack:
        group = open_group(store, stack)
        asked, left_out = same_part(as_request(source), group)
        limits = {name: stored_limit(array) for name, array in arrays(group).items()}
        opened = stack.enter_context(open_source(stack.enter_context(located(asked))))
        sides = _Sides(opened, stack.enter_context(open_source(store)), limits)
        names = _compared(sides)
        shown = [plain(opened, name) for name in names] + list(derived(opened, tuple(names)))
        found = tuple(_compare(sides, one, fields) for one in shown)
    return CompareReport(
        ", ".join(asked.paths),
        str(store),
        found,
        tuple(name for name, limit in limits.items() if not limit),
        figures.original_nbytes,
        figures.stored_nbytes,
        any(one.compared < one.fields or one.window for one in found),
        tuple(left_out),
        {variable.name: variable.ratio for variable in figures.variables},
    )


def _compared(sides: _Sides) -> list[str]:
    """Return the variables that have a limit, in the order of the source."""
    names = [name for name in sides.source.names if sides.limits.get(name) and sides.source.stored(name).size]
    for name in names:
        ours, theirs = sides.source.stored(name).shape, sides.store.stored(name).shape
        if ours != theirs:
            raise ArgumentError(f"{name}: the store has shape {theirs}, the source {ours}: not made of it")
    if not names:
        raise ArgumentError("source and store have no variable with a bound or target in common")
    return names


def _compare(sides: _Sides, shown: Shown, most: int) -> Comparison:
    """Return the figures of one thing, over fields that are evenly spread."""
    name = shown.parts[0]
    shape = sides.source.stored(name).shape
    total = math.prod(shape[:-2])
    places = spread(shape[:-2], most)
    rows, columns = _window(shape[-2:])
    grid = _cut(grid_of(sides.source, name), rows, columns)
    own = len(shown.parts) == 1 and shown.name == name
    limit = sides.limits[name] if own else None
    collected = _Collected(grid, len(places))
    for index in places:
        x, y = (_field(side, sides, shown, index, (rows, columns), grid) for side in (sides.source, sides.store))
        collected.add(labels(sides.source, name, index), x, y, limit)
    cut = (rows.stop - rows.start, columns.stop - columns.start) if math.prod(shape[-2:]) > _WINDOW_VALUES else None
    return replace(collected.result(shown, limit), compared=len(places), fields=total, window=cut, derived=not own)


def _field(side: Source, sides: _Sides, shown: Shown, index: Index, window: tuple[slice, slice], grid: Grid) -> Array:
    """Return a field of a variable, or what is computed from it, as (rows, columns) in physical units."""
    fields = []
    for name in shown.parts:
        ndim = side.stored(name).ndim
        region = (*(slice(place, place + 1) for place in index), *window[2 - min(ndim, 2) :])
        values = side.read(name, region, lossy=side is sides.source and sides.limits.get(name) is not None)
        fields.append(_measured(values.reshape(-1, values.shape[-1]), sides.limits.get(name)))
    return shown.compute(fields, index, grid)


def _measured(values: Array, limit: Promise | None) -> Array:
    """Return the values with NaN for numbers that stand for missing: these are exact, and would count in a range."""
    exact = limit.exact if limit is not None else ()
    return np.where(np.isin(values, np.asarray(exact, values.dtype)), np.nan, values) if exact else values


class _Collected:
    """Sums, spectra, maps and the largest error of the fields so far."""

    def __init__(self, grid: Grid, count: int) -> None:
        self.grid, self.count = grid, count
        self.merit: Merit | None = None
        self.power: dict[str, list[Array]] = {}
        self.wavelengths: dict[str, Array] = {}
        self.frames: list[Frame] = []
        self.zoom: Zoom | None = None
        self.violations = self.number = 0

    def add(self, label: str, x: Array, y: Array, limit: Promise | None) -> None:
        """Take in one field: original `x`, decoded `y`."""
        if self.merit is None:
            self.merit = Merit(_scale(limit, x, y))
        before = self.merit.worst
        self.merit.add(self.number, x, y, self.grid.weights(x.shape[0]), stride_for(self.count * x.size))
        if limit is not None and limit.mode in ("abs", "pointwise", "lossless"):
            self.violations += measure(x, y.astype(x.dtype), limit).violations
        if self.merit.worst is not before and self.merit.worst is not None and min(x.shape) > 1:
            self.zoom = _zoom(label, x, y, self.merit.worst.row, self.merit.worst.column)
        self._add_power(x, y)
        if self.number in {place[0] for place in spread((self.count,), FRAMES)} and min(x.shape) > 1:
            self.frames.append(_frame(label, x, y))
        self.number += 1

    def _add_power(self, x: Array, y: Array) -> None:
        y = np.where(np.isfinite(x), y, np.nan)  # both with the same gaps
        if x.shape[1] >= 8:
            both = [spectra.zonal(side, self.grid.periodic, self.grid.lat) for side in (x, y)]
            self._sum("zonal", spectra.zonal_wavelengths(x.shape[1]), both)
        if min(x.shape) >= 8:
            transformed = [spectra.cosine(side) for side in (x, y)]
            self._sum("cosine", transformed[0][0], [power for _, power in transformed])

    def _sum(self, kind: str, wavelengths: Array, both: list[Array]) -> None:
        self.wavelengths[kind] = wavelengths
        known = self.power.get(kind)
        self.power[kind] = both if known is None else [a + b for a, b in zip(known, both, strict=True)]

    def result(self, shown: Shown, limit: Promise | None) -> Comparison:
        """Return what was found."""
        assert self.merit is not None, "there is always a field"
        found = {kind: spectra.binned(self.wavelengths[kind], *power) for kind, power in self.power.items()}
        return Comparison(
            shown.name,
            shown.long_name,
            shown.units,
            limit,
            self.merit,
            found.get("zonal"),
            found.get("cosine"),
            self.grid,
            tuple(self.frames),
            self.zoom,
            self.violations,
            self.count,
            self.count,
        )


def spread(sizes: Sequence[int], most: int) -> list[Index]:
    """Return up to `most` places along leading axes, evenly spread, first and last included."""
    total = math.prod(sizes)
    if total <= most:
        return list(itertools.product(*map(range, sizes)))
    flat = sorted({round(number * (total - 1) / max(most - 1, 1)) for number in range(most)})
    return [tuple(int(place) for place in np.unravel_index(number, sizes)) for number in flat]


def _window(field: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns that are looked at: all, or a window in the middle."""
    rows, columns = field if len(field) == 2 else (1, *field)
    if rows * columns <= _WINDOW_VALUES:
        return slice(0, rows), slice(0, columns)
    part = math.sqrt(_WINDOW_VALUES / (rows * columns))
    return _middle(rows, max(1, int(rows * part))), _middle(columns, max(1, int(columns * part)))


def _middle(size: int, kept: int) -> slice:
    start = (size - kept) // 2
    return slice(start, start + kept)


def _cut(grid: Grid, rows: slice, columns: slice) -> Grid:
    lat = None if grid.lat is None else grid.lat[rows]
    return Grid(lat, None if grid.lon is None else grid.lon[columns])


def _scale(limit: Promise | None, x: Array, y: Array) -> float:
    """Return what the histogram of errors is drawn against."""
    if isinstance(limit, Bound) and limit.mode == "abs" and limit.value:
        return limit.value
    if isinstance(limit, Target) and limit.rmse:
        return 4 * limit.rmse
    error = np.abs(x.astype(np.float64) - y)
    return float(np.nanmax(error, initial=0.0)) or 1.0


def _frame(label: str, x: Array, y: Array) -> Frame:
    error = y.astype(np.float64) - x
    steps = [-(-size // most) for size, most in zip(x.shape, _SCREEN, strict=True)]
    thin = tuple(slice(step // 2, None, step) for step in steps)
    return Frame(label, x[thin].astype("f4"), y[thin].astype("f4"), _largest(error, steps).astype("f4"))


def _largest(error: Array, steps: Sequence[int]) -> Array:
    """Return the value that is furthest from 0 in each cell of some rows and columns; NaN where all is missing."""
    rows, columns = (size // step for size, step in zip(error.shape, steps, strict=True))
    cells = error[: rows * steps[0], : columns * steps[1]].reshape(rows, steps[0], columns, steps[1])
    flat = np.moveaxis(cells, 2, 1).reshape(rows, columns, -1)
    at = np.argmax(np.where(np.isfinite(flat), np.abs(flat), -1), axis=-1)
    return np.asarray(np.take_along_axis(flat, at[..., None], -1)[..., 0])


def _zoom(label: str, x: Array, y: Array, row: int, column: int) -> Zoom:
    rows, columns = (
        slice(max(0, place - _ZOOM), min(size, place + _ZOOM + 1))
        for place, size in zip((row, column), x.shape, strict=True)
    )
    return Zoom(label, x[rows, columns], y[rows, columns], row - rows.start, column - columns.start)
