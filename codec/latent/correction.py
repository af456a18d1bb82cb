"""The synthesis transformer in whole numbers: what is added to a decoded channel, the same on every machine.

The same network as `synthesis.py`, which trains it in floats, by the arithmetic of `integer_transformer.py`.

    units --features--> (first, second) --embed--> tokens --blocks--> tokens --widen--> (third, last)-->
    1024ths of a step
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.latent.context_features import UNITS
from isopress.codec.latent.integer_transformer import (
    ONE,
    ONE_SCORED,
    STRIP,
    TOP,
    Block,
    Product,
    Windows,
    each,
    log,
    rounded,
)
from isopress.codec.native import correction
from isopress.codec.native.dispatch import compiled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

LARGEST = 2.0**34  # magnitude of units that are looked at
POOL = 4  # tokens per side of what global attention sees
WIDE = 4  # cells on each side of the mean that a cell's own is compared with
MARGIN = 2  # cells around the field that each pair of convolutions needs
GAIN = 3.0  # of the features: a third of a step is what matters
PREFIX = "synthesis."  # of the tensors in a weights file
ONE_CORRECTED, TOP_CORRECTED = 1024, 32767  # of corrections, in steps
WIDEST, LARGEST_CELL = 1024, 8
WIDEST_HEAD = 128  # 128 * TOP_SCORED**2 < 2**31
CELL_ROWS = 32  # rows of cells whose features are made together
ROWS = 64  # of a field that are taken at a time where all would make a large array
NARROWED = 15  # bits of deviations whose squares are summed up


@dataclass(frozen=True)
class SynthesisConfig:
    """Shape of a synthesis: values per side of cells and tokens; channels of the convolutions; width, heads, number
    and window of the blocks.

    Raises
    ------
    ValueError
        Tokens are not whole cells, at least MARGIN to a side, or a number is odd or beyond what sums allow.
    """

    cell: int = 4
    token: int = 16
    channels: int = 48
    dim: int = 128
    heads: int = 4
    blocks: int = 3
    window: int = 8
    mlp_ratio: float = 3.0

    def __post_init__(self) -> None:
        if self.token % self.cell or self.token < MARGIN * self.cell:
            raise ValueError(f"a token of {self.token} values does not hold {MARGIN} or more cells of {self.cell}")
        odd = self.channels % 2 or self.dim % (2 * self.heads) or self.hidden % 2
        if odd or self.dim > WIDEST or self.dim > WIDEST_HEAD * self.heads or self.cell > LARGEST_CELL:
            raise ValueError(f"a synthesis cannot have {self}")

    @property
    def hidden(self) -> int:
        """Width of the hidden layers of the blocks."""
        return int(self.dim * self.mlp_ratio)


def padded(x: NDArray[Any], n: int, periodic: bool) -> NDArray[Any]:
    """Pad (H, W, ...) by n on all sides: the nearest values, or those around the globe in longitude."""
    rows, columns = (np.arange(-n, size + n) for size in x.shape[:2])
    columns = columns % x.shape[1] if periodic else columns.clip(0, x.shape[1] - 1)
    found: NDArray[Any] = x[rows.clip(0, len(x) - 1)][:, columns]
    return found


def around(x: NDArray[np.int64], n: int, periodic: bool) -> NDArray[np.int64]:
    """Return sums over (2 n + 1) x (2 n + 1) places around each, (H, W)."""
    for axis, circle in ((0, False), (1, periodic)):
        x = x.swapaxes(0, axis)
        places = np.arange(-n, len(x) + n)
        total = np.cumsum(x[places % len(x) if circle else places.clip(0, len(x) - 1)], 0)
        total[2 * n + 1 :] -= total[: -2 * n - 1].copy()
        x = total[2 * n :].swapaxes(0, axis)
    return np.ascontiguousarray(x)


def filled(channel: I32 | F64, token: int) -> NDArray[np.int64]:
    """Return a decoded channel (h, w) in units, filled up to whole tokens with the values at its edges."""
    h, w = channel.shape
    units = np.empty((h + -h % token, w + -w % token), np.int64)
    for start in range(0, h, ROWS):
        rows = channel[start : start + ROWS]
        # What comes as int32 is smaller anyway.
        units[start : start + len(rows), :w] = rows if rows.dtype == np.int32 else np.clip(rows, -LARGEST, LARGEST)
    units[:h, w:] = units[:h, w - 1 : w]
    units[h:] = units[h - 1]
    return units


def spread_of(units: NDArray[np.int64]) -> F32:
    """Return the logarithm of the standard deviation, in steps, and a thousandth, (1,)."""
    n, total, energy = units.size, 0, 0
    middle = sum(units.sum(1).tolist()) // n
    least = max(int(units.max()) - middle, middle - int(units.min())).bit_length() - NARROWED
    for start in range(0, len(units), ROWS):
        deviations = (units[start : start + ROWS] - middle) >> max(least, 0)
        total += sum(deviations.sum(1).tolist())
        energy += sum(np.square(deviations).sum(1).tolist())
    variance = (energy * n - total * total) / (n * n)
    return log(np.array([math.sqrt(variance) * 2.0 ** max(least, 0) / UNITS + 0.001], np.float32))


@dataclass(frozen=True, eq=False)
class Correction:
    """The whole transformer; letters as in `synthesis.Synthesis`, without the first."""

    config: SynthesisConfig
    first: Product
    second: Product
    embed: Product
    quality: tuple[F32, F32]
    blocks: tuple[Block, ...]
    overview: Block
    widen: Product
    third: Product
    last: Product

    @classmethod
    def restore(cls, config: SynthesisConfig, tensors: Mapping[str, NDArray[Any]]) -> Correction:
        """Return the correction of a weights file.

        Raises
        ------
        ValueError
            Tensors are missing, or have other shapes.
        """
        made = _Restored(config, tensors)
        c, d, values, cells = config.channels, config.dim, config.cell**2, (config.token // config.cell) ** 2
        weight, bias = made.floats("quality", d, 1)
        return cls(
            config,
            made.product("first", c, values + 1, 3),
            made.product("second", c, c, 3),
            made.product("embed", d, cells * c),
            (weight[:, 0], bias),
            tuple(made.block(f"blocks.{i}", config.hidden) for i in range(config.blocks)),
            made.block("overview", d),
            made.product("widen", cells * c, d, one=ONE),
            made.product("third", c, 2 * c, 3),
            made.product("last", values, c, 3, one=ONE_CORRECTED),
        )

    def correct(self, steps: F64, periodic: bool) -> None:
        """Add the correction to a decoded channel (h, w), multiples of 1 / UNITS, in place."""
        self.add(steps, self.corrections(steps * UNITS, periodic), periodic)

    def add(self, steps: F64, found: I16, periodic: bool) -> None:
        """Add corrections, less their local means, to a decoded channel (h, w), in place."""
        (h, w), token = steps.shape, self.config.token
        periodic = periodic and not w % token
        tokens = found.reshape(len(found) // token, token, -1, token).sum((1, 3), dtype=np.int64)
        for y, means in enumerate(around(tokens, 2, periodic) / (25 * token * token)):
            rows = slice(y * token, min((y + 1) * token, h))
            steps[rows] += (found[rows, :w] - means.repeat(token)[:w]) * (1 / ONE_CORRECTED)

    def corrections(self, channel: I32 | F64, periodic: bool) -> I16:
        """Return what is added to a decoded channel (h, w) in units, filled up to whole tokens, before local means are
        taken off."""
        (h, w), token, cell = channel.shape, self.config.token, self.config.cell
        periodic, r = periodic and not w % token, token // cell
        units = filled(channel, token)
        spread = spread_of(units[:h, :w])
        seen = padded(features(units, cell, periodic), 2 * MARGIN, periodic)
        del units  # the largest array of all
        strips = [(y, min(y + STRIP * r, len(seen) - 4 * MARGIN)) for y in range(0, len(seen) - 4 * MARGIN, STRIP * r)]

        def look(rows: I16) -> tuple[I16, F32]:
            a = self.second.activations(self.first.activations(rows))
            return a, self.embed(blocked(a[MARGIN:-MARGIN, MARGIN:-MARGIN], r))

        looked, embedded = zip(*each(look, [seen[a : b + 4 * MARGIN] for a, b in strips]), strict=True)
        del seen
        quality = spread * np.float32(0.3) * self.quality[0] + self.quality[1]
        tokens = np.concatenate(embedded)
        tokens += quality
        del embedded
        tokens = self.context(tokens, periodic)
        whole = padded(rounded(tokens * np.float32(ONE), TOP), 1, periodic)
        del tokens

        def answer(number: int) -> I16:
            start, stop = strips[number]
            told = unblocked(self.widen.integers(whole[start // r : stop // r + 2]), r)
            told = told[r - MARGIN : len(told) - r + MARGIN, r - MARGIN : told.shape[1] - r + MARGIN]
            a = self.third.activations(looked[number], told)
            return unblocked(self.last.integers(a, top=TOP_CORRECTED), cell)[..., 0]

        return np.concatenate(each(answer, range(len(strips))))

    def context(self, tokens: F32, periodic: bool) -> F32:
        """Send tokens (h, w, dim) through the blocks; in their middle, global attention over means of 4 x 4 tokens."""
        for i, block in enumerate(self.blocks):
            h, w = tokens.shape[:2]
            rows = Windows.divide(h, self.config.window, odd=bool(i % 2), periodic=False)
            columns = Windows.divide(w, self.config.window, odd=bool(i % 2), periodic=periodic)
            tokens = block(tokens, rows, columns, periodic)
            if i == (len(self.blocks) - 1) // 2:
                means = pooled(tokens)
                told = self.overview(means, Windows.whole(len(means)), Windows.whole(means.shape[1]), periodic) - means
                tokens = tokens + told.repeat(POOL, 0).repeat(POOL, 1)[:h, :w]
        return tokens


@dataclass(frozen=True)
class _Restored:
    """The tensors of a weights file, of the shapes that they must have."""

    config: SynthesisConfig
    tensors: Mapping[str, NDArray[Any]]

    def tensor(self, name: str, *shape: int) -> F32:
        found = self.tensors.get(PREFIX + name)
        if found is None or found.shape != shape or not np.isfinite(found).all():
            raise ValueError(f"the weights do not fit their synthesis: {name} is not a tensor {shape} of numbers")
        return found.astype(np.float32)

    def floats(self, name: str, *shape: int) -> tuple[F32, F32]:
        return self.tensor(f"{name}.weight", *shape), self.tensor(f"{name}.bias", shape[0])

    def product(self, name: str, outputs: int, inputs: int, side: int = 1, one: int = 1) -> Product:
        return Product.of(*self.floats(name, outputs, inputs, *((side, side) if side > 1 else ())), one=one)

    def block(self, name: str, hidden: int) -> Block:
        d, conv = self.config.dim, None
        if name.startswith("blocks."):
            weight, bias = self.floats(f"{name}.conv", d, 1, 3, 3)
            conv = np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0)), bias
        return Block(
            conv,
            (self.floats(f"{name}.norm1", d), self.floats(f"{name}.norm2", d)),
            self.product(f"{name}.attention.qkv", 3 * d, d, one=ONE_SCORED),
            self.product(f"{name}.attention.out", d, d),
            self.product(f"{name}.mlp.0", hidden, d),
            self.product(f"{name}.mlp.2", d, hidden),
            self.config.heads,
        )


def pooled(tokens: F32) -> F32:
    """Return the means of 4 x 4 tokens, of fewer at the end."""
    h, w, dim = tokens.shape
    filled = np.pad(tokens, ((0, -h % POOL), (0, -w % POOL), (0, 0)))
    total = np.zeros((len(filled) // POOL, filled.shape[1] // POOL, dim), np.float32)
    for i, j in np.ndindex(POOL, POOL):
        total += filled[i::POOL, j::POOL]
    count = np.minimum(h - POOL * np.arange(len(total)), POOL)[:, None] * np.minimum(
        w - POOL * np.arange(total.shape[1]), POOL
    )
    return np.asarray(total / count[..., None].astype(np.float32), np.float32)


def features(units: NDArray[np.int64], cell: int, periodic: bool) -> I16:
    """Return (H, W, cell * cell + 1 or 2) of cells: values less the mean of 3 x 3 cells; the cell's mean less that of
    9 x 9 cells. Logarithmic beyond a third of a step; the last is 0 if there would be an odd number of them."""
    n, side = cell * cell, (2 * WIDE + 1) ** 2
    h, w = units.shape[0] // cell, units.shape[1] // cell
    cells = units.reshape(h, cell, w, cell)
    parts = [slice(y, y + CELL_ROWS) for y in range(0, h, CELL_ROWS)]
    sums = np.concatenate(each(lambda rows: cells[rows].sum((1, 3)), parts))
    near, beside = around(sums, 1, periodic), side * sums - around(sums, WIDE, periodic)
    factors = np.float32(GAIN / (9 * n * UNITS)), np.float32(GAIN / (side * n * UNITS))
    if compiled():
        numbers = float(factors[0]), float(factors[1]), ONE, TOP

        def look(rows: slice) -> I16:
            some = cells[rows].reshape(-1, w * cell)
            return correction.features(some, near[rows], beside[rows], cell, 9 * n, numbers)

        return np.concatenate(each(look, parts))
    out = np.zeros((h, w, (n + 2) // 2 * 2), np.int16)
    out[..., :n] = _compressed(9 * n * blocked(units[..., None], cell) - near[..., None], factors[0])
    out[..., n] = _compressed(beside, factors[1])
    return out


def _compressed(d: NDArray[np.int64], factor: np.float32) -> I16:
    """Return differences, logarithmic beyond a third of a step, as integers."""
    size = log(np.abs(d.astype(np.float32)) * factor + np.float32(1))
    return rounded(np.copysign(size, d.astype(np.float32)) * np.float32(ONE), TOP)


def blocked(x: NDArray[Any], n: int) -> NDArray[Any]:
    """Return the n x n places of each block as its channels, in C order, the channels of a place together."""
    h, w, c = x.shape
    return x.reshape(h // n, n, w // n, n, c).swapaxes(1, 2).reshape(h // n, w // n, n * n * c)


def unblocked(x: NDArray[Any], n: int) -> NDArray[Any]:
    """Undo `blocked`."""
    h, w, c = x.shape
    return x.reshape(h, w, n, n, c // n**2).swapaxes(1, 2).reshape(h * n, w * n, c // n**2)
