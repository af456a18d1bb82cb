"""The synthesis transformer in whole numbers: what is added to a decoded channel, the same on every machine.

The same network as `synthesis.py`, which trains it in floats. Products are of 16 bit integers, summed up in 32 bits;
what lies between them is binary32, one rounded operation after another in a fixed order; sums over many values are
integers, or halve pairwise. So numpy and every compiled kernel give the same correction, to the last bit.

    units --features--> (first, second) --embed--> tokens --blocks--> tokens --widen--> (third, last)-->
    1024ths of a step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isopress.codec import native
from isopress.codec.latent.context_features import UNITS
from isopress.codec.threads import share

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
T = TypeVar("T")
R = TypeVar("R")

LARGEST = 2.0**34  # magnitude of units that are looked at
STRIP = 8  # rows of tokens that convolutions take at a time
POOL = 4  # tokens per side of what global attention sees
WIDE = 4  # cells on each side of the mean that a cell's own is compared with
MARGIN = 2  # cells around the field that each pair of convolutions needs
GAIN = 3.0  # of the features: a third of a step is what matters
PREFIX = "synthesis."  # of the tensors in a weights file
ONE, TOP = 512, 16383  # integer that stands for one in activations, and the largest magnitude of any
ONE_SCORED, TOP_SCORED = 256, 4095  # of queries, keys and values
ONE_CORRECTED, TOP_CORRECTED = 1024, 32767  # of corrections, in steps
WIDEST, LARGEST_CELL = 1024, 8
WIDEST_HEAD = 128  # 128 * TOP_SCORED**2 < 2**31
LARGEST_SUM = 2**31 - 1
FINEST_WEIGHT, LARGEST_WEIGHT = 14, 32767  # weights are multiples of 2**-14 or coarser
SHARE = 14  # log2 of what the shares of an attention add up to, about
EPSILON = np.float32(1e-6)
ROWS = 64  # of a field that deviations are summed up of at a time
NARROWED = 15  # bits of deviations whose squares are summed up
LOWEST = np.float32(-40)  # of exponents
GELU_REACH = np.float32(4)
# gelu(x) = x / 2 + a polynomial of x**2 / 8 - 1, for |x| <= 4; 2**x for 0 <= x < 1; log2(1 + x) likewise
GELU = np.array(
    [1.407592, 0.7327393, -0.22679299, 0.15627347, -0.117204614, 0.067298606, -0.043379508, 0.043590862, -0.02027177],
    np.float32,
)
EXP2 = np.array([0.9999999, 0.69315463, 0.24014077, 0.055863284, 0.008946215, 0.0018951073], np.float32)
LOG2 = np.array(
    [3.1969782e-07, 1.4426521, -0.7203866, 0.47249952, -0.32311594, 0.19042084, -0.07684872, 0.014778721], np.float32
)


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


def polynomial(x: F32, coefficients: F32) -> F32:
    """Return the polynomial, lowest power first, by Horner's rule."""
    y = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        y *= x
        y += c
    return y


def gelu(x: F32) -> F32:
    """Return x times the normal distribution of x, within 2e-4."""
    size = np.abs(x)
    t = np.minimum(size, GELU_REACH)
    h = polynomial(t * t * np.float32(0.125) - np.float32(1), GELU)
    return np.asarray(x * np.float32(0.5) + (h + (size - t) * np.float32(0.5)), np.float32)


def exp2(x: F32) -> F32:
    """Return 2**x for x in -40..0."""
    whole = np.floor(x)
    return np.asarray(np.ldexp(polynomial(x - whole, EXP2), whole.astype(np.int32)), np.float32)


def log(x: F32) -> F32:
    """Return the natural logarithm of normal numbers."""
    bits = x.view(np.int32)
    mantissa = (bits & 0x7FFFFF | 0x3F800000).view(np.float32)
    whole = ((bits >> 23) - 127).astype(np.float32)
    return (whole + polynomial(mantissa - np.float32(1), LOG2)) * np.float32(math.log(2))


def rounded(x: F32, top: int) -> I16:
    """Return the nearest integers, at most `top` in magnitude."""
    return np.rint(np.clip(x, -np.float32(top), np.float32(top))).astype(np.int16)


def halved_sum(x: F32) -> F32:
    """Return sums (..., 1) along the last axis, filled with zeros to a power of two: of halves, until one is left."""
    n = x.shape[-1]
    size = 1 << (n - 1).bit_length()
    if size > n:
        x = np.concatenate([x, np.zeros((*x.shape[:-1], size - n), np.float32)], -1)
    while size > 1:
        size //= 2
        x = x[..., :size] + x[..., size:]
    return x


@dataclass(frozen=True, eq=False)
class Product:
    """A linear map or a 3 x 3 cross-correlation of integers: sums times `scale`, plus `bias`, (out,) each.

    weight : (rows, columns, in, out), integers; in is even
    """

    weight: I16
    scale: F32
    bias: F32

    @classmethod
    def of(cls, weight: NDArray[Any], bias: NDArray[Any], top: int = TOP, one: int = 1) -> Product:
        """Round float weights (out, in, ...), each output as finely as sums of inputs up to `top` allow.

        one : what the result stands for one with
        """
        w = weight.astype(np.float64).reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
        w = np.pad(w, [(0, 0), (0, w.shape[1] % 2), (0, 0), (0, 0)])
        fine = np.full(len(w), FINEST_WEIGHT)
        while True:
            integers = np.rint(np.ldexp(w, fine[:, None, None, None]))
            size = np.abs(integers).reshape(len(w), -1)
            large = (size.max(1) > LARGEST_WEIGHT) | (size.sum(1) * top > LARGEST_SUM)
            if not large.any():
                break
            fine[large] -= 1
        scale = np.ldexp(np.float32(one / ONE), -fine).astype(np.float32)
        weights = np.ascontiguousarray(integers.astype(np.int16).transpose(2, 3, 1, 0))
        return cls(weights, scale, bias.astype(np.float32) * np.float32(one))

    def __call__(self, *inputs: I16) -> F32:
        """Map integers (H, W, in), side by side if there are several, to (H - rows + 1, W - columns + 1, out)."""
        if native.level() != native.NUMPY:
            return np.asarray(self._compiled(inputs, native.PLAIN, TOP))
        return self._sums(*inputs)

    def integers(self, *inputs: I16, top: int = TOP) -> I16:
        """Return the same, rounded and at most `top`."""
        if native.level() != native.NUMPY:
            return self._compiled(inputs, native.ROUNDED, top)
        return rounded(self._sums(*inputs), top)

    def activations(self, *inputs: I16) -> I16:
        """Return gelu of the same, as integers."""
        if native.level() != native.NUMPY:
            return self._compiled(inputs, native.GELU_ROUNDED, TOP)
        return rounded(gelu(self._sums(*inputs)) * np.float32(ONE), TOP)

    def _compiled(self, inputs: tuple[I16, ...], kind: int, top: int) -> NDArray[Any]:
        seen = tuple(np.ascontiguousarray(x) for x in inputs)
        packed, factors = self.packed(tuple(x.shape[2] for x in inputs))
        rows, _, _, outputs = self.weight.shape
        return native.product(seen, packed, rows, outputs, factors, kind, top, ONE)

    @cache  # noqa: B019 - there are few, and they live as long as their model
    def packed(self, channels: tuple[int, ...]) -> tuple[I16, tuple[F32, F32]]:
        """Return what the compiled kernels take, for inputs of so many channels each."""
        missing = -len(self.scale) % native.OUT_BLOCK
        factors = np.pad(self.scale, (0, missing)), np.pad(self.bias, (0, missing))
        return native.packed_weights(self.weight, channels), factors

    def _sums(self, *inputs: I16) -> F32:
        rows, columns, _, outputs = self.weight.shape
        h, w = inputs[0].shape[0] - rows + 1, inputs[0].shape[1] - columns + 1
        total, first = np.zeros((h * w, outputs)), 0  # binary64 holds such sums
        for x in inputs:
            weight, factors = self.weight[:, :, first : first + x.shape[2]].astype(np.float64), x.astype(np.float64)
            for y, c in np.ndindex(rows, columns):
                total += factors[y : y + h, c : c + w].reshape(h * w, -1) @ weight[y, c]
            first += x.shape[2]
        return (total.astype(np.float32) * self.scale + self.bias).reshape(h, w, outputs)


@dataclass(frozen=True)
class Windows:
    """How windows lie along one axis: first token, tokens, and of how many the answers count, (count, 3); beyond the
    end of the axis they go on at its start."""

    n: int
    table: I32

    @classmethod
    def divide(cls, n: int, window: int, *, odd: bool, periodic: bool) -> Windows:
        """Return as few windows as cover `n` tokens with at most `window` each; those of `odd` blocks start half a
        window in."""
        count = -(-n // window)
        size = -(-n // count)
        shift = size // 2 if odd and count > 1 else 0
        if periodic:
            rows = [((shift + i) % n, size, min(size, n - i)) for i in range(0, n, size)]
        else:
            edges = sorted({0, *range(shift, n, size), n})
            rows = [(start, stop - start, stop - start) for start, stop in pairwise(edges)]
        return cls(n, np.array(rows, np.int32))

    @classmethod
    def whole(cls, n: int) -> Windows:
        """Return one window."""
        return cls(n, np.array([(0, n, n)], np.int32))

    def places(self) -> Iterator[tuple[NDArray[np.intp], int]]:
        """Yield the tokens of each window, and of how many, from the first, the answers count."""
        for start, size, answered in self.table:
            yield (start + np.arange(size)) % self.n, answered


@dataclass(frozen=True, eq=False)
class Block:
    """A transformer block: depthwise convolution if there is one, attention, MLP, each added to its input."""

    conv: tuple[F32, F32] | None  # (3, 3, dim), (dim,)
    norms: tuple[tuple[F32, F32], tuple[F32, F32]]
    qkv: Product
    out: Product
    hidden: Product
    last: Product
    heads: int

    def __call__(self, x: F32, rows: Windows, columns: Windows, periodic: bool) -> F32:
        """Map tokens (h, w, dim) to the same shape."""
        if self.conv is not None:
            x = x + depthwise(x, *self.conv, periodic)
        parts = [np.s_[start : start + STRIP] for start in range(0, len(x), STRIP)]
        qkv = each(lambda rows: self.qkv.integers(normalised(x[rows], *self.norms[0]), top=TOP_SCORED), parts)
        taken = attended(np.concatenate(qkv), self.heads, rows, columns)

        def rest(rows: slice) -> F32:
            y = x[rows] + self.out(taken[rows])
            return y + self.last(self.hidden.activations(normalised(y, *self.norms[1])))

        return np.concatenate(each(rest, parts))


def each(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Return what `work` makes of every piece: kernels by several threads; numpy's products have their own."""
    return share(work, pieces) if native.level() != native.NUMPY else [work(piece) for piece in pieces]


def depthwise(x: F32, weight: F32, bias: F32, periodic: bool) -> F32:
    """Return the 3 x 3 cross-correlation of each channel by itself; zeros beyond edges."""
    if native.level() != native.NUMPY:
        return native.depthwise(np.ascontiguousarray(x), weight, bias, periodic)
    h, w, _ = x.shape
    seen = np.pad(x, ((1, 1), (0, 0), (0, 0)))
    seen = np.pad(seen, ((0, 0), (1, 1), (0, 0)), "wrap" if periodic else "constant")
    total = np.broadcast_to(bias, x.shape).copy()
    for i, j in np.ndindex(3, 3):
        total += seen[i : i + h, j : j + w] * weight[i, j]
    return total


def normalised(x: F32, weight: F32, bias: F32) -> I16:
    """Return the layer norm of tokens (..., dim), as integers."""
    part = np.float32(1 / x.shape[-1])
    if native.level() != native.NUMPY:
        return native.norm(np.ascontiguousarray(x), weight, bias, float(part), float(EPSILON), ONE, TOP)
    d = x - halved_sum(x) * part
    root = np.float32(1) / np.sqrt(halved_sum(d * d) * part + EPSILON)
    return rounded((d * root * weight + bias) * np.float32(ONE), TOP)


def attended(qkv: I16, heads: int, rows: Windows, columns: Windows) -> I16:
    """Return what tokens take from others of their window, of queries, keys and values (h, w, 3 * dim)."""
    (h, w), dim = qkv.shape[:2], qkv.shape[2] // 3
    scale = np.float32(1 / (ONE_SCORED**2 * math.sqrt(dim // heads) * math.log(2)))
    out = np.empty((h, w, dim), np.int16)
    if native.level() != native.NUMPY:
        factors = float(scale), 2.0**SHARE, ONE / (ONE_SCORED * 2**SHARE), TOP
        each(lambda row: native.attention(qkv, heads, row, columns.table, factors, out), list(rows.table[:, None]))
        return out
    for down, height in rows.places():
        for across, width in columns.places():
            here = qkv[np.ix_(down, across)].reshape(-1, 3, heads, dim // heads).transpose(1, 2, 0, 3)
            q, k, v = here.astype(np.float64)
            scores = (q @ k.transpose(0, 2, 1)).astype(np.float32) * scale
            scores = np.maximum(scores - scores.max(-1, keepdims=True), LOWEST)
            e = np.rint(exp2(scores) * np.float32(2**15))
            share = np.rint(e * (np.float32(2**SHARE) / e.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)))
            sums = (share.astype(np.float64) @ v).astype(np.float32)
            taken = rounded(sums * np.float32(ONE / (ONE_SCORED * 2**SHARE)), TOP)
            found = taken.transpose(1, 0, 2).reshape(len(down), len(across), dim)
            out[np.ix_(down[:height], across[:width])] = found[:height, :width]
    return out


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
        (h, w), token = steps.shape, self.config.token
        scaled = steps * UNITS
        units = np.clip(scaled, -LARGEST, LARGEST, out=scaled).astype(np.int64)
        del scaled
        spread = spread_of(units)
        units = np.pad(units, ((0, -h % token), (0, -w % token)), "edge")
        periodic = periodic and not w % token
        found = self.corrections(units, spread, periodic)
        H, W = units.shape[0] // token, units.shape[1] // token
        near = around(found.reshape(H, token, W, token).sum((1, 3), dtype=np.int64), 2, periodic)
        means = (near / (25 * token * token)).repeat(token, 0).repeat(token, 1)
        steps += (found[:h, :w] - means[:h, :w]) * (1 / ONE_CORRECTED)

    def corrections(self, units: NDArray[np.int64], spread: F32, periodic: bool) -> I16:
        """Return what is added to a field of whole tokens, before its local means are taken off."""
        cell, r = self.config.cell, self.config.token // self.config.cell
        seen = padded(features(units, cell, periodic), 2 * MARGIN, periodic)
        strips = [(y, min(y + STRIP * r, len(seen) - 4 * MARGIN)) for y in range(0, len(seen) - 4 * MARGIN, STRIP * r)]

        def look(rows: tuple[int, int]) -> tuple[I16, F32]:
            a = self.second.activations(self.first.activations(seen[rows[0] : rows[1] + 4 * MARGIN]))
            return a, self.embed(blocked(a[MARGIN:-MARGIN, MARGIN:-MARGIN], r))

        looked = each(look, strips)
        quality = spread * np.float32(0.3) * self.quality[0] + self.quality[1]
        context = self.context(np.concatenate([tokens for _, tokens in looked]) + quality, periodic)
        whole = padded(rounded(context * np.float32(ONE), TOP), 1, periodic)

        def answer(number: int) -> I16:
            start, stop = strips[number]
            told = unblocked(self.widen.integers(whole[start // r : stop // r + 2]), r)
            told = told[r - MARGIN : len(told) - r + MARGIN, r - MARGIN : told.shape[1] - r + MARGIN]
            a = self.third.activations(looked[number][0], told)
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
    sums = units.reshape(h, cell, w, cell).sum((1, 3))
    near, beside = around(sums, 1, periodic), side * sums - around(sums, WIDE, periodic)
    factors = np.float32(GAIN / (9 * n * UNITS)), np.float32(GAIN / (side * n * UNITS))
    if native.level() != native.NUMPY:
        return native.features(units, near, beside, cell, 9 * n, (float(factors[0]), float(factors[1]), ONE, TOP))
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
