"""How often each block of rows is halved ahead: chosen by the encoder, written down, read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.entropy.distributions import OFFSET_MAX, offset_model
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.reduced_grid import Blocks, levels

F64 = NDArray[np.float64]

SEEN = 2  # channels that are looked at to choose halvings
LEAST_PART = 192  # columns of them, at least
DEEPEST = 3  # halvings that are tried
DEAD = 0.7  # steps: smaller coefficients cost little
DOUBT = 0.08  # part of the cost that one halving must save: contexts make up for less (measured, as the next)
CHANGE = 0.03  # cost of one halving more or less from block to block, in mean costs of a block


def part_seen(channels: NDArray[Any]) -> NDArray[Any]:
    """Return the part of channels (..., h, w) that is looked at, (n, h, columns)."""
    h, w = channels.shape[-2:]
    return channels.reshape(-1, h, w)[:SEEN, :, : max(w // 4, min(w, LEAST_PART))]


def choose_ahead(part: F64) -> tuple[int, ...]:
    """Return how often each block of rows of channels is best halved ahead, given their `part_seen`, in steps.

    Every block alike is tried, for each number of halvings; of what that costs, and what a change from block to block
    does, the cheapest path is taken.
    """
    blocks = Blocks.of(*part.shape[-2:])
    if not blocks.count:
        return ()
    costs = np.empty((min(blocks.most, DEEPEST) + 1, blocks.count))
    for times in range(len(costs)):
        costs[times] = _cost_by_block(part, blocks, times) * (1 + DOUBT) ** times
    change = CHANGE * costs[0].mean() * np.abs(np.subtract.outer(range(len(costs)), range(len(costs))))
    total, before = costs[:, 0], []
    for cost in costs.T[1:]:
        before.append((total[:, None] + change).argmin(0))
        total = (total[:, None] + change).min(0) + cost
    path = [int(total.argmin())]
    for earlier in before[::-1]:
        path.append(int(earlier[path[-1]]))
    return tuple(path[::-1])


def _cost_by_block(x: F64, blocks: Blocks, times: int) -> F64:
    """Return about what each block of channels (n, h, w) costs, in nats, if all are halved so often ahead."""
    cost = np.zeros(blocks.count)
    for level in levels(x.shape[-2], x.shape[-1], False, (times,) * blocks.count):
        x, bands = level.analyse(x, np.float32)
        finer = blocks.log2_rows - (level.depth + 1 if len(level.bands) > 1 else 0)  # log2 of a block's rows there
        for index, band in enumerate(bands):
            for strip in level.bands[index].strips:  # one, as all rows are alike, or none where they are not split
                nats = np.log(1 + np.square(strip.cells(band) * np.float32(1 / DEAD))).sum((0, 2), dtype=np.float64)
                if finer < 0:
                    nats = (nats * 2.0**finer).repeat(1 << -finer)
                at = np.minimum(np.arange(len(nats)) >> max(finer, 0), blocks.count - 1)
                cost += np.bincount(at, nats, blocks.count)
    return cost


def write_ahead(writer: SymbolWriter, ahead: Sequence[int]) -> None:
    """Code how often each block is halved ahead, as the difference from the block before."""
    for before, times in zip([0, *ahead], ahead, strict=False):
        writer.symbol(times - before + OFFSET_MAX, offset_model(True))


def read_ahead(reader: SymbolReader, height: int, width: int) -> tuple[int, ...]:
    """Undo `write_ahead`.

    Raises
    ------
    CorruptPayloadError
        A block of such fields cannot be halved so often.
    """
    blocks, found = Blocks.of(height, width), [0]
    for _ in range(blocks.count):
        found.append(found[-1] + reader.symbol(offset_model(True)) - OFFSET_MAX)
    if not all(0 <= times <= blocks.most for times in found):
        raise CorruptPayloadError(f"blocks of rows are halved {found[1:]} times ahead; allowed are 0 to {blocks.most}")
    return tuple(found[1:])
