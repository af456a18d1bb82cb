"""Special values: NaN, infinities, -0.0 and (on demand) zeros and others, restored with their bits and positions.

For the prediction of all others, smooth values take the place of those that do not matter.
"""

from dataclasses import dataclass

import numpy as np

from isopress.codec.errors import CorruptPayloadError, TruncatedPayloadError
from isopress.codec.limits import is_one_of
from isopress.codec.values.label_map import decode_classes, encode_classes
from isopress.codec.values.outliers import bits_of

MAX_PATTERNS = 255


@dataclass(frozen=True)
class Specials:
    """Which values are special: class 0 is ordinary, class k stands for the bits `patterns[k - 1]`."""

    patterns: np.ndarray  # (n,) uint32 or uint64, n <= 255
    classes: np.ndarray  # (B, H, W) uint8

    @property
    def valid(self) -> np.ndarray:
        """Where values are ordinary: bool, (B, H, W)."""
        valid: np.ndarray = self.classes == 0
        return valid

    def of_fields(self, fields: slice) -> "Specials":
        """Return those of some fields."""
        return Specials(self.patterns, self.classes[fields])


def find_specials(x: np.ndarray, *, zeros: bool = False, exact: tuple[float, ...] = ()) -> Specials | None:
    """Return the special values of `x`, or None if there are none.

    Parameters
    ----------
    x : ndarray, (B, H, W), float32 or float64
        NaN (any payload), +-inf and -0.0 are special.
    zeros : bool
        Whether +0.0 is special too.
    exact : tuple of float
        Values that are special too.

    Notes
    -----
    Beyond 255 different bit patterns the rarer ones share the commonest pattern, and the final check of
    the chunk lists them as exceptions: every value is restored all the same.
    """
    special = ~np.isfinite(x)
    if exact:
        special |= is_one_of(x, exact)
    with np.errstate(invalid="ignore"):  # signalling NaN
        special |= x == 0 if zeros else (x == 0) & np.signbit(x)
    if not special.any():
        return None
    patterns, inverse, counts = np.unique(bits_of(x)[special], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    rank[rank >= MAX_PATTERNS] = 0
    classes = np.zeros(x.shape, np.uint8)
    classes[special] = rank[inverse] + 1
    return Specials(patterns[order[:MAX_PATTERNS]], classes)


def restore_specials(x_hat: np.ndarray, specials: Specials) -> None:
    """Overwrite the special values of C-contiguous `x_hat`, in place, with their bits."""
    bits = x_hat.view(specials.patterns.dtype)
    places = specials.classes != 0
    bits[places] = specials.patterns[specials.classes[places] - 1]


def encode_specials(specials: Specials) -> bytes:
    """Return the section: number of patterns, patterns, coded class map."""
    patterns = specials.patterns.astype(specials.patterns.dtype.newbyteorder("<")).tobytes()
    count = specials.patterns.size
    return bytes([count]) + patterns + encode_classes(specials.classes, count + 1)


def decode_specials(section: bytes, dtype: np.dtype, shape: tuple[int, int, int]) -> Specials:
    """Return the special values of an array of `shape` (B, H, W) and float `dtype`.

    Raises
    ------
    TruncatedPayloadError
        `section` ends early.
    CorruptPayloadError
        No pattern at all, a class without a pattern, or damaged content.
    """
    if not section:
        raise TruncatedPayloadError("the special section is empty; at least 1 byte is needed")
    count, start = section[0], 1 + section[0] * dtype.itemsize
    if count == 0:
        raise CorruptPayloadError("the special section has no pattern; 1 to 255 are allowed")
    if len(section) < start:
        raise TruncatedPayloadError(f"the special section ends inside its {count} patterns")
    patterns = np.frombuffer(section[1:start], f"<u{dtype.itemsize}").astype(f"u{dtype.itemsize}")
    return Specials(patterns, decode_classes(section[start:], shape, count + 1))


def fill_smoothly(y: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return `y` with each invalid point replaced by the mean of the valid points around it.

    Means of 2 x 2 blocks are taken of valid points only, level by level, until every block has one (push);
    on the way back each invalid point takes the value of its block (pull). A field without a valid point
    becomes 0.

    Parameters
    ----------
    y : ndarray, (B, H, W), float64
    valid : ndarray, (B, H, W), bool
    """
    if valid.all():
        return y
    if y.shape[1:] == (1, 1):
        return np.where(valid, y, 0.0)
    weight = _blocks(valid)
    mean = _blocks(np.where(valid, y, 0.0)) / np.maximum(weight, 1)
    coarse = fill_smoothly(mean, weight > 0)
    around = coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : y.shape[1], : y.shape[2]]
    return np.where(valid, y, around)


def _blocks(a: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 blocks, (B, ceil(H / 2), ceil(W / 2)), float64; beyond the edge there is nothing."""
    rows = np.add.reduceat(a, np.arange(0, a.shape[1], 2), axis=1, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, a.shape[2], 2), axis=2)
