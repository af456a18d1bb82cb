"""Small weights for tests of latents: random integer contexts and a small random synthesis; no file, no wait."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from isopress.codec.entropy.coder import SymbolReader, SymbolWriter
from isopress.codec.entropy.tables import TAILS
from isopress.codec.latent.coefficients import FIRST_HEAD, Channel, Latents, decode, write_head, write_phase
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED, Phase
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.context_model import ContextModel, Prediction
from isopress.codec.latent.correction import SynthesisConfig
from isopress.codec.latent.decorrelation import Mixing
from isopress.codec.latent.halvings import read_ahead
from isopress.codec.latent.reduced_grid import AnyLevel, levels
from isopress.codec.latent.section import Latent, code_fields, coded_shape
from isopress.codec.latent.synthesis import Synthesis
from isopress.codec.latent.weights import LatentModel, parse_latent

CONFIG = SynthesisConfig(cell=2, token=8, channels=6, dim=16, heads=2, blocks=2, window=4, mlp_ratio=1.0)
HIDDEN = 12
QUIET = 8  # activity indexes that the table answers

Tensors = dict[str, NDArray[Any]]
F64 = NDArray[np.float64]


def context_tensors(seed: int = 0, quiet: int = QUIET) -> Tensors:
    """Return networks of random weights whose answers vary over their whole ranges, and a random quiet table."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for band in range(BANDS):
        for layer, (inputs, outputs) in enumerate(((ALONE + RELATED, HIDDEN), (HIDDEN, 3))):
            name = f"contexts.{band}.{layer}"
            tensors[f"{name}.weight"] = rng.integers(-60, 60, (outputs, inputs)).astype(np.int8)
            tensors[f"{name}.bias"] = rng.integers(-3000, 3000, (DEPTHS, outputs)).astype(np.int32)
            tensors[f"{name}.shift"] = np.full(outputs, 8 if layer == 0 else 7, np.int8)
    shape = BANDS, DEPTHS, quiet
    table = np.stack([rng.integers(-12, 20, shape), rng.integers(0, TAILS, shape)], 2)
    return tensors | {"quiet": table.astype(np.int16)}


def synthesis(seed: int = 0, size: float = 0.05, config: SynthesisConfig = CONFIG) -> Synthesis:
    """Return a small transformer whose corrections are not zero: about `size` steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Synthesis(config)
        torch.nn.init.normal_(made.last.weight, std=size)
    return made.eval().requires_grad_(False)


def file_content(seed: int = 0, quiet: int = QUIET) -> bytes:
    """Return a safetensors file of kind `latent`, as payloads name it."""
    config, floats = synthesis(seed).stored()
    tensors = {**context_tensors(seed, quiet), **floats}
    return save(tensors, metadata={"kind": "latent", "synthesis": json.dumps(config)})


@cache
def small_model(seed: int = 0, quiet: int = QUIET) -> LatentModel:
    """Return those weights, ready to code."""
    config, _ = synthesis(seed).stored()
    return parse_latent(f"small-{seed}", file_content(seed, quiet), config)


def encode_fields(fields: F64, latent: Latent, model: LatentModel, **choices: Any) -> tuple[bytes, F64]:
    """Return the section of fields (..., h, w), and the values that it decodes to."""
    coded = code_fields(fields, latent, model, **choices)
    return coded.section, coded.fields()


@dataclass(frozen=True)
class Visit:
    """One phase as the encoder came to it: what was known, the coefficients in steps, their symbols, the offset."""

    phase: Phase
    predicted: Prediction
    target: NDArray[np.float32]
    symbols: NDArray[np.int32]
    offset: int

    @property
    def place(self) -> tuple[int, int, int]:
        """Level, band and number of the phase."""
        return self.phase.band.level, self.phase.band.number, self.phase.index

    @property
    def depth(self) -> int:
        """Which of the biases and tables apply."""
        return min(self.phase.band.maps.level.depth, DEPTHS - 1)


def visits(
    channels: Sequence[Latents], split: Sequence[AnyLevel], model: ContextModel, trade: float = 0.15
) -> Iterator[Visit]:
    """Walk as `encode` does, one phase after another; the next is not yet touched."""
    writer = SymbolWriter(peaked=True)
    head, offset, before = FIRST_HEAD, 0, None
    for latents in channels:
        top = np.rint(latents.top).astype(np.int64)
        head = write_head(writer, head, top, latents.finest)
        channel = Channel(top, split, latents.finest, before)
        for phase, predicted in channel.phases(model):
            target = phase.take(latents.bands[phase.band.level][phase.band.number], pad=0)
            symbols, offset = write_phase(writer, target, predicted, offset, trade)
            yield Visit(phase, predicted, target, symbols, offset)
            phase.put(predicted.mean, symbols)
        before = channel.related(before)


def read_latents(section: bytes, shape: tuple[int, ...], model: LatentModel) -> list[F64]:
    """Return the decoded channels (h, w) of a section in units, in coding order: what must be alike everywhere."""
    flags, (*leading, h, w) = section[0], coded_shape(shape)
    start = 26 if flags & 4 else 17
    reader = SymbolReader(memoryview(section)[start:-4], peaked=True)
    kept = [len(Mixing.read(reader, n).rows) for n in leading if n > 1]
    split = levels(h, w, bool(flags & 1), read_ahead(reader, h, w) if flags & 32 else ())
    channels = decode(reader, math.prod(kept), split, split[-1].low.shape if split else (h, w), model.contexts)
    reader.finish()
    return channels
