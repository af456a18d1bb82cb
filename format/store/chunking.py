"""How an array is cut: the default chunks of a variable, and the regions that are converted one at a time."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from isopress.codec.errors import ArgumentError
from isopress.format.zarr.chunk_objects import Region

CHUNK_VALUES = 2**20  # of chunks that are no blocks: a good size for one object and one decode
# Of blocks. Of them one field is often read, with those it refers to: of 0.25 degree there are two, so that this moves
# twice its bytes and takes about half a second. More are smaller in all (benchmarks.chunks).
BLOCK_VALUES = 2**21
TARGET_VALUES = 2**23  # of blocks with a target: eight fields of 0.25 degree, three fifths of the bytes of pairs
MAX_AXIS_FIELDS = 128  # along one axis of a block,
MIN_CHUNK_VALUES = 2**17  # unless fields are so small that chunks would have fewer values than this
MAX_FIELD_VALUES = 2**22  # larger fields are cut
MAX_CHUNK_VALUES = 2**28  # a payload holds 4 GiB; half of that with float64
REGION_NBYTES = 2**27  # what one task may hold of the source when its chunks are large, and a shard when decoded
TASK_NBYTES = 2**23  # of the source, at least: less is not worth a task of its own
MANY_CHUNKS = 4  # of a variable: from then on several share a shard


def default_chunks(shape: Sequence[int]) -> tuple[int, ...]:
    """Return chunks of about `CHUNK_VALUES` values that keep the last two axes whole where they fit.

    A field of more than `MAX_FIELD_VALUES` values is cut into equal parts, rows first; small fields are
    grouped along the leading axes, last one first, into groups of nearly equal size.
    """
    field = _field_chunk(shape)
    last_first = range(len(shape) - 3, -1, -1)
    return (*_grouped(shape[:-2], max(1, CHUNK_VALUES // math.prod(field)), last_first), *field)


def default_blocks(dims: Sequence[str], shape: Sequence[int], values: int = BLOCK_VALUES) -> tuple[int, ...]:
    """Return chunks of whole fields that can refer to each other, grouped along the leading axes: times first.

    Hours tell more about each other than levels do. Axes that are not times follow, last one first.

    A chunk has up to `values` values: two fields of 0.25 degree, a day of hours of 1 degree. Along one axis it has at
    most `MAX_AXIS_FIELDS`, more where it would have fewer than `MIN_CHUNK_VALUES` values. Fields too large are cut as
    by `default_chunks`.

    Parameters
    ----------
    dims : sequence of str
        Names of the axes; one with "time" in it, or `t`, `step`, `date` or `hour`, is a time.
    shape : sequence of int
        Of the array.
    values : int
        `TARGET_VALUES` for what has a target.
    """
    field = _field_chunk(shape)
    of_field = math.prod(field)
    fields = max(1, values // of_field)
    last_first = range(len(shape) - 3, -1, -1)
    times_first = sorted(last_first, key=lambda axis: not is_time(dims[axis]))
    most = max(MAX_AXIS_FIELDS, MIN_CHUNK_VALUES // of_field)
    return (*_grouped(shape[:-2], fields, times_first, most), *field)


def choose_chunks(
    dims: Sequence[str], shape: Sequence[int], wanted: Mapping[str, int], default: Sequence[int]
) -> tuple[int, ...]:
    """Return the default chunks, with the sizes the user wants for single dimensions.

    Raises
    ------
    ArgumentError
        A chunk would hold more than `MAX_CHUNK_VALUES` values.
    """
    chunks = tuple(
        min(wanted.get(dim, usual), max(size, 1)) for dim, usual, size in zip(dims, default, shape, strict=True)
    )
    if math.prod(chunks) > MAX_CHUNK_VALUES:
        raise ArgumentError(
            f"a chunk of {' x '.join(map(str, chunks))} values is larger than the allowed "
            f"{MAX_CHUNK_VALUES}; choose smaller ones with --chunk"
        )
    return chunks


def choose_shards(
    dims: Sequence[str], chunks: Sequence[int], wanted: Mapping[str, int], default: Sequence[int] | None
) -> tuple[int, ...] | None:
    """Return the default shards, with the sizes the user wants for single dimensions; None for one chunk each.

    Raises
    ------
    ArgumentError
        A size is no multiple of that of the chunks.
    """
    sizes = zip(dims, chunks, default or chunks, strict=True)
    shards = tuple(wanted.get(dim, usual) for dim, _, usual in sizes)
    for dim, shard, chunk in zip(dims, shards, chunks, strict=True):
        if shard % chunk:
            raise ArgumentError(f"shard {dim}={shard}: not a multiple of its chunks, which have {chunk}")
    return shards if shards != tuple(chunks) else None


def check_chunk_dims(what: str, wanted: Mapping[str, int], dims: Sequence[str]) -> None:
    """Raise ArgumentError for a dimension that does not exist or a size below 1."""
    for dim, size in wanted.items():
        if dim not in dims:
            raise ArgumentError(f"{what} {dim}={size}: no such dimension; there are: {', '.join(dims)}")
        if size < 1:
            raise ArgumentError(f"{what} {dim}={size}: a {what} has at least 1 element")


def default_shards(chunks: Sequence[int], shape: Sequence[int], itemsize: int) -> tuple[int, ...] | None:
    """Return shards of whole chunks, first along the last of the axes before the field; None where none are needed.

    They take up to `REGION_NBYTES` when decoded; the first axis, along which archives grow, comes last.
    """
    if math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)) < MANY_CHUNKS:
        return None
    shards = grown(chunks, shape, itemsize, REGION_NBYTES)
    return shards if shards != tuple(chunks) else None


def grown(chunks: Sequence[int], shape: Sequence[int], itemsize: int, nbytes: int) -> tuple[int, ...]:
    """Return whole chunks that take up to `nbytes` together, last axis first, nothing beyond the array."""
    steps = list(chunks)
    for axis in reversed(range(len(steps))):
        room = max(1, nbytes // (math.prod(steps) * itemsize))
        steps[axis] *= _even(max(1, -(-shape[axis] // steps[axis])), room)
        if steps[axis] < shape[axis]:
            break  # what is grown is a box of chunks that follow each other
    return tuple(steps)


def task_steps(
    units: Sequence[int], shape: Sequence[int], source_chunks: Sequence[int], itemsize: int
) -> tuple[int, ...]:
    """Return the size of one task's region: whole shards or chunks, grouped to read each source chunk few times.

    A source with long chunks in time would otherwise be decompressed once for every field; the group
    grows to the source's chunk, last axis first, while it stays within `REGION_NBYTES`. Small ones are grouped until
    they are worth a task. The same for every number of processes, so that another run can go on with what is done.
    """
    steps = list(grown(units, shape, itemsize, TASK_NBYTES))
    for axis in reversed(range(len(steps))):
        others = math.prod(steps) // steps[axis] * itemsize
        allowed = max(1, REGION_NBYTES // (others * steps[axis]))
        wanted = -(-source_chunks[axis] // steps[axis])
        steps[axis] *= min(allowed, max(1, wanted))
    return tuple(steps)


def regions(shape: Sequence[int], steps: Sequence[int]) -> Iterator[Region]:
    """Yield the slices that cover an array in steps, C order; nothing when it is empty."""
    starts = (range(0, size, step) for size, step in zip(shape, steps, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + step, size)) for start, step, size in zip(corner, steps, shape, strict=True)
        )


def _field_chunk(shape: Sequence[int]) -> list[int]:
    """Return the last two axes, cut where a field has too many values."""
    field = [max(size, 1) for size in shape[-2:]]
    if math.prod(field) > MAX_FIELD_VALUES:
        field[-1] = _even(field[-1], MAX_FIELD_VALUES)
        field[0] = _even(field[0], max(1, MAX_FIELD_VALUES // field[-1])) if len(field) == 2 else field[0]
    return field


def is_time(dim: str) -> bool:
    """Whether a dimension with this name is a time."""
    return "time" in dim.lower() or dim.lower() in ("t", "step", "date", "hour")


def _grouped(leading: Sequence[int], room: int, order: Sequence[int], most: int = MAX_CHUNK_VALUES) -> tuple[int, ...]:
    """Return how many fields to take along each leading axis: `room` in all, `most` on one axis, axes in `order`."""
    sizes = [1] * len(leading)
    for axis in order:
        sizes[axis] = _even(max(leading[axis], 1), min(room, most))
        room = max(1, room // sizes[axis])
    return tuple(sizes)


def _even(size: int, most: int) -> int:
    """Return the smallest step that cuts `size` into as few parts as steps of `most` would."""
    return -(-size // -(-size // max(1, min(most, size))))
