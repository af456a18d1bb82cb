"""Files of VAEformer weights: the networks, their configuration, what their channels are, and frozen tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from isopress.codec.errors import ArgumentError
from isopress.codec.models.registry import Kind, Weights, find, installed
from isopress.codec.vaeformer.channels import Channels
from isopress.codec.vaeformer.config import Pair, PatchConfig, tuple_of
from isopress.codec.vaeformer.cra5 import Cra5Model
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.rans import Rows

KIND: Kind = "vaeformer"
PUBLISHED = "cra5_268v_300k"  # what CRA5 calls its checkpoint
_TABLES = ("scales", "tables.", "hyper_tables.", "channels.")


def save_cra5(
    path: Path, tensors: Mapping[str, Tensor], config: PatchConfig, channels: Channels, shape: Pair, source: str
) -> None:
    """Write the weights that were made of a published checkpoint; `source` is the sha256 of that."""
    normal = {"channels.mean": channels.mean, "channels.deviation": channels.deviation}
    texts = {
        "kind": KIND,
        "config": json.dumps(asdict(config)),
        "channels": json.dumps(channels.names),
        "shape": json.dumps(shape),
        "imported_from_sha256": source,
    }
    save_file({**tensors, **{key: torch.from_numpy(value) for key, value in normal.items()}}, path, texts)


@cache
def load_cra5(sha256: str) -> Cra5Model:
    """Return the published model of installed weights, once per process.

    Raises
    ------
    ModelNotFoundError
        There are none, or they are no imported checkpoint.
    """
    return find(sha256, KIND).parsed(_parse_cra5)


def cra5_weights(grid: Pair) -> Weights:
    """Return the installed weights that decode CRA5's files with hyper-latents of these sides.

    Raises
    ------
    ArgumentError
        There are none, or several and none of them has the published name.
    """
    fitting = [w for w in installed(KIND) if "imported_from_sha256" in w.metadata and _grid(w.metadata) == grid]
    named = [w for w in fitting if w.name == PUBLISHED] or fitting
    if len({w.sha256 for w in named}) == 1:
        return named[0]
    if named:
        raise ArgumentError(f"several weights fit: {', '.join(w.name for w in named)}; name one of them (model=...)")
    raise ArgumentError(
        f"files of CRA5 with hyper-latents of {grid} need its checkpoint: isopress models import {PUBLISHED}.pth"
    )


def parse_config(text: str) -> PatchConfig:
    """Return a configuration from JSON."""
    return PatchConfig(**{name: tuple_of(value) for name, value in json.loads(text).items()})


def _grid(metadata: Mapping[str, str]) -> Pair:
    positions, patch = parse_config(metadata["config"]).positions, parse_config(metadata["config"]).hyper_patch
    h, w = positions or (0, 0)
    return -(-h // patch), -(-w // patch)


def _parse_cra5(weights: Weights, data: bytes) -> Cra5Model:
    tensors, metadata = load(data), weights.metadata
    config = parse_config(metadata["config"])
    with torch.device("meta"):
        network = PatchVAEformer(config)
    network.load_state_dict({k: t for k, t in tensors.items() if not k.startswith(_TABLES)}, assign=True)
    names = tuple((str(name), level) for name, level in json.loads(metadata["channels"]))
    channels = Channels(names, tensors["channels.mean"].numpy(), tensors["channels.deviation"].numpy())
    if not len(names) == config.channels == channels.mean.size == channels.deviation.size:
        raise ValueError(f"{len(names)} names for {config.channels} channels")
    rows, hyper_rows = (_rows(tensors, prefix) for prefix in ("tables", "hyper_tables"))
    scales = np.asarray(tensors["scales"].numpy())
    if len(scales) != len(rows.offsets) or len(hyper_rows.offsets) != config.hyper_latents:
        raise ValueError(f"{len(rows.offsets)} and {len(hyper_rows.offsets)} tables")
    height, width = json.loads(metadata["shape"])
    network.requires_grad_(False).eval()
    return Cra5Model(network, channels, scales, rows, hyper_rows, (int(height), int(width)))


def _rows(tensors: Mapping[str, Tensor], prefix: str) -> Rows:
    parts = (tensors[f"{prefix}.{part}"].numpy() for part in ("quantized_cdf", "cdf_length", "offset"))
    return Rows.of(*parts)
