"""Which parts of an array are looked at when there is no time for all: spread evenly, cut as its chunks are.

Positions follow a low-discrepancy sequence, the multiples of powers of a root of x^(d+1) = x + 1 modulo 1 (M. Roberts,
"The unreasonable effectiveness of quasirandom sequences", 2018): any number of them is spread over all axes.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

from isopress.format.zarr.chunk_objects import Region

_NARROWEST = 32  # values along an axis of a piece that is cut out of a chunk: its edges cost


def pieces(shape: Sequence[int], chunks: Sequence[int], most: int) -> Iterator[Region]:
    """Yield regions of an array: whole chunks, each once; of chunks with more than `most` values parts, for ever.

    A part has all fields of its chunk, all their rows and as many columns as `most` allows; where that makes fewer than
    `_NARROWEST` columns, fewer rows.
    """
    if math.prod(chunks) <= most or len(shape) < 2:
        yield from _whole_chunks(shape, chunks)
        return
    rows, columns = (min(size, chunk) for size, chunk in zip(shape[-2:], chunks[-2:], strict=True))
    fields = math.prod(min(size, chunk) for size, chunk in zip(shape[:-2], chunks[:-2], strict=True))
    width = min(columns, max(_NARROWEST, most // (fields * rows)))
    height = min(rows, max(_NARROWEST, most // (fields * width)))
    steps = (*chunks[:-2], height, width)
    for place in positions(len(shape)):
        starts = [int(part * -(-size // step)) * step for part, size, step in zip(place, shape, chunks, strict=True)]
        for axis in (-2, -1):
            tiles = -(-shape[axis] // steps[axis])  # not any place: edges would be seen more seldom than the middle
            starts[axis] = int(place[axis] * tiles) * (shape[axis] - steps[axis]) // max(tiles - 1, 1)
        yield tuple(slice(at, min(at + step, size)) for at, step, size in zip(starts, steps, shape, strict=True))


def fields_of(shape: Sequence[int]) -> Iterator[Region]:
    """Yield fields of an array, whole, each once."""
    yield from _whole_chunks(shape, (*(1 for _ in shape[:-2]), *(max(size, 1) for size in shape[-2:])))


def positions(axes: int) -> Iterator[tuple[float, ...]]:
    """Yield points of the unit cube, spread evenly however many are taken."""
    root = 1.0
    for _ in range(32):
        root = (1 + root) ** (1 / (axes + 1))
    for number in itertools.count():
        yield tuple((0.5 + number * root ** -(axis + 1)) % 1 for axis in range(axes))


def _whole_chunks(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[Region]:
    grid = [-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)]
    count, seen = math.prod(grid), set[tuple[int, ...]]()
    misses = 0
    for place in positions(len(shape)):
        index = tuple(int(part * size) for part, size in zip(place, grid, strict=True))
        misses = misses + 1 if index in seen else 0
        if len(seen) == count or misses > 100:
            break
        if index not in seen:
            seen.add(index)
            yield _region(index, shape, chunks)
    if len(seen) < count:  # the last few are met too seldom to wait for
        for index in itertools.product(*map(range, grid)):
            if index not in seen:
                yield _region(index, shape, chunks)


def _region(index: Sequence[int], shape: Sequence[int], chunks: Sequence[int]) -> Region:
    parts = zip(index, chunks, shape, strict=True)
    return tuple(slice(place * step, min((place + 1) * step, size)) for place, step, size in parts)
