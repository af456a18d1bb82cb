"""Small weights for tests of latents: random integer contexts and a small random corrector; no file, no wait."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from isopress.codec.entropy.coder import SCALES, TAILS, SymbolReader
from isopress.codec.latent.coefficients import decode
from isopress.codec.latent.context_features import ALONE, DEPTHS, RELATED
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.corrector_v1 import CorrectorConfigV1
from isopress.codec.latent.decorrelation import Mixing
from isopress.codec.latent.halvings import read_ahead
from isopress.codec.latent.reduced_grid import zoned_levels
from isopress.codec.latent.section import coded_shape
from isopress.codec.latent.synthesis import CorrectorConfig
from isopress.codec.latent.transforms import Transforms, stored
from isopress.codec.latent.weights import LatentModel, parse_latent

CONFIG = CorrectorConfig(cell=2, token=8, channels=6, dim=16, heads=2, blocks=2, window=4, mlp_ratio=1.0)
CONFIG_V1 = CorrectorConfigV1(channels=6, dim=16, heads=2, blocks=2, window=4, mlp_ratio=1.0)
HIDDEN = 12
QUIET = 8  # activity indexes that the table answers
REACH = 40  # largest symbol of a table

Tensors = dict[str, NDArray[np.generic]]


def laplace_tables() -> Tensors:
    """Return one two-sided exponential distribution per scale; tail classes differ in their support."""
    scale = 0.06 * 2.0 ** (np.arange(SCALES) / 8)
    k = np.arange(-REACH, REACH + 1)
    shape = np.exp(-np.abs(k) / np.maximum(scale, 0.15)[:, None])
    frequencies = np.tile(shape, (TAILS, 1))
    support = np.minimum(3 + np.rint(4 * np.tile(scale, TAILS)) + np.repeat(np.arange(TAILS), SCALES), REACH)
    frequencies[np.abs(k) > support[:, None]] = 0
    return {"tables.frequencies": frequencies.astype(np.float32), "tables.support": support.astype(np.int32)}


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


def transforms(seed: int = 0, size: float = 0.05, config: CorrectorConfig | CorrectorConfigV1 = CONFIG) -> Transforms:
    """Return small transformers whose corrections are not zero: about `size` steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Transforms(config)
        for corrector in (made.analysis, made.synthesis):
            torch.nn.init.normal_(corrector.last.weight, std=size)
    return made.eval().requires_grad_(False)


def file_content(seed: int = 0, quiet: int = QUIET) -> bytes:
    """Return a safetensors file of kind `vaeformer`, as payloads name it."""
    config, floats = stored(transforms(seed))
    tensors = {**context_tensors(seed, quiet), **laplace_tables(), **floats}
    return save(tensors, metadata={"kind": "latent", "synthesis": json.dumps(config)})


@cache
def small_model(seed: int = 0, quiet: int = QUIET) -> LatentModel:
    """Return those weights, ready to code."""
    config, _ = stored(transforms(seed))
    return parse_latent(f"small-{seed}", file_content(seed, quiet), config)


def read_latents(section: bytes, shape: tuple[int, ...], model: LatentModel) -> list[NDArray[np.float64]]:
    """Return the decoded channels (h, w) of a section in units, in coding order: what must be alike everywhere."""
    flags, shape = section[0], coded_shape(shape)
    start = 26 if flags & 4 else 17
    reader = SymbolReader(model.contexts.tables, memoryview(section)[start:-4], peaked=True)
    kept = [len(Mixing.read(reader, n).rows) for n in shape[:-2] if n > 1]
    ahead = read_ahead(reader, shape[-2], shape[-1]) if flags & 32 else ()
    split = zoned_levels(shape[-2], shape[-1], bool(flags & 1), ahead)
    top = split[-1].low if split else (shape[-2], shape[-1])
    channels = decode(reader, math.prod(kept), split, top, model.contexts, adapted=bool(flags & 8))
    reader.finish()
    return channels
