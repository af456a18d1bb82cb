"""Files of VAEformer weights: networks, their configuration, and what their channels are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save_file
from torch import Tensor

from isopress.codec.entropy.coder import SCALE_MAX
from isopress.codec.entropy.integer_mlp import IntegerNetwork
from isopress.codec.entropy.tables import TAILS, refuse_own
from isopress.codec.errors import ArgumentError
from isopress.codec.models.registry import Kind, Weights, find, installed, model_id
from isopress.codec.vaeformer.channels import Channels, Name
from isopress.codec.vaeformer.config import Pair, PatchConfig, tuple_of
from isopress.codec.vaeformer.cra5 import Cra5Model
from isopress.codec.vaeformer.integer_scales import HYPER_MAX, integer_network, scale_indexes
from isopress.codec.vaeformer.layers import token_count
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.rans import Rows

KIND: Kind = "vaeformer"
PUBLISHED = "cra5_268v_300k"  # what CRA5 calls its checkpoint
_INTEGERS = ("scales.", "latents.", "hyper.", "channels.")
# What only training needs: densities that tables stand for, floats that integers stand for, widths of the first stage.
_TRAINING = ("prior.", "width", "hyper_decoder.integer.")
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


def _names(text: str) -> tuple[Name, ...]:
    """Return names and levels of channels from JSON."""
    names = tuple((str(name), None if level is None else float(level)) for name, level in json.loads(text))
    if not all(level is None or np.isfinite(level) for _, level in names):
        raise ValueError("a level is not finite")
    return names


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
    names = _names(metadata["channels"])
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


def parse(weights: Weights, data: bytes) -> object:
    """Return the model of a file, CRA5's or our own; raise what `Weights.parsed` expects of what is none."""
    return (_parse_cra5 if "imported_from_sha256" in weights.metadata else _parse)(weights, data)


# --- weights of our own --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VaeformerModel:
    """Weights that code chunks, by name and sha256 of their file.

    tails : tail class of each latent (L,); hyper_centre, hyper_scale, hyper_tail : middle,
    scale index and tail class of each hyper-latent (Z,).
    """

    name: str
    sha256: bytes
    network: PatchVAEformer
    channels: Channels
    scales: IntegerNetwork
    tails: NDArray[np.int8]
    hyper_centre: NDArray[np.int32]
    hyper_scale: NDArray[np.int16]
    hyper_tail: NDArray[np.int8]

    def grids(self, shape: Pair) -> tuple[Pair, Pair]:
        """Return the sides of latents and hyper-latents of fields of `shape`."""
        config = self.network.config
        h, w = (token_count(n, k, s) for n, k, s in zip(shape, config.kernel, config.stride, strict=True))
        patch = config.hyper_patch
        return (h, w), (token_count(h, patch, patch), token_count(w, patch, patch))

    def scale_indexes(self, hyper: NDArray[np.int32], step: int, shape: Pair, periodic: bool) -> NDArray[np.int16]:
        """Return the scale indexes (L, h, w) of the latents of one hour, in integers."""
        patch, (grid, _) = self.network.config.hyper_patch, self.grids(shape)
        return scale_indexes(self.scales, hyper, step, patch, grid, periodic)

    def hyper_tables(self, channel: int, count: int) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Return scale index and tail class of so many hyper-latents of one channel."""
        return np.full(count, self.hyper_scale[channel]), np.full(count, self.hyper_tail[channel])

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ArgumentError unless chunks of this shape have the channels of these weights."""
        wanted, labels = self.network.config.channels, self.channels.labels
        if len(shape) < 2 or (wanted > 1 and (len(shape) < 3 or shape[-3] != wanted)):
            shown = ", ".join(labels[:8]) + ("..." if wanted > 8 else "")
            raise ArgumentError(
                f"the weights {self.name!r} code chunks (..., channel, lat, lon) with {wanted} channels ({shown}) in "
                f"this order, not {shape}"
            )

    def order_of(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        """Return which channel of the weights each entry of a chunk's axis of channels is; no labels: as in them.

        Raises
        ------
        ArgumentError
            These are not the channels of the weights, each once.
        """
        own = self.channels.labels
        if labels and sorted(labels) != sorted(own):
            shown = [", ".join(some[:8]) + ("..." if len(some) > 8 else "") for some in (own, labels)]
            raise ArgumentError(f"the weights {self.name!r} have the channels {shown[0]}, not {shown[1]}")
        return tuple(map(own.index, labels or own))

    def coded_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the (T, C, H, W) that a chunk of `shape` is coded as."""
        channels = self.network.config.channels
        return prod(shape[:-2]) // channels, channels, shape[-2], shape[-1]


def stored_networks(network: PatchVAEformer, largest: int) -> dict[str, Tensor]:
    """Return the tensors of a network as files hold them: in half precision, or matrices as integers up to `largest`.

    Such integers count in `<name>.scale`, one for each entry of the first axis. If `largest` is 0 there are none.
    """
    found = dict[str, Tensor]()
    for name, tensor in network.state_dict().items():
        if name.startswith(_TRAINING):
            continue
        found[name] = tensor.half().contiguous()
        if largest and tensor.ndim > 1:
            # What only a writer needs may be coarser.
            most = -(-largest // 2) if name.startswith(("encoder.", "hyper_encoder.")) else largest
            rows = tensor.float().flatten(1)
            scale = (rows.abs().amax(1) / most).half().clamp_min(2.0**-24)
            integers = torch.round(rows / scale.float()[:, None]).clamp(-most, most)
            found |= {name: integers.to(torch.int8).reshape(tensor.shape), f"{name}.scale": scale}
    return found


def _network(config: PatchConfig, tensors: Mapping[str, Tensor]) -> PatchVAEformer:
    """Return what `stored_networks` wrote; what only training needs is as at the start.

    Raises
    ------
    ValueError
        The configuration is that of a larger, or another, network than that of the file.
    """
    with torch.device("meta"):  # takes no memory, so that sizes are compared before there are any
        shapes = {name: initial.shape for name, initial in PatchVAEformer(config).state_dict().items()}
    if any(tensors[name].shape != shape for name, shape in shapes.items() if not name.startswith(_TRAINING)):
        raise ValueError("tensors have other shapes than those of the configuration")
    network, found = PatchVAEformer(config), dict[str, Tensor]()
    for name, initial in network.state_dict().items():
        if name.startswith(_TRAINING):
            found[name] = initial
            continue
        found[name] = tensors[name].float()
        if tensors[name].dtype == torch.int8:
            found[name] *= tensors[f"{name}.scale"].float().reshape(-1, *[1] * (initial.ndim - 1))
    network.load_state_dict(found)
    return network.requires_grad_(False).eval()


def load_vaeformer(name_or_sha: str) -> VaeformerModel:
    """Return the weights of this name, or whose sha256 begins with these hexadecimal digits (at least 16).

    Raises
    ------
    ModelNotFoundError
        No such weights are installed, or they are CRA5's own, which code nothing.
    """
    return _load(model_id(name_or_sha, KIND))


@cache
def _load(sha256: str) -> VaeformerModel:
    return find(sha256, KIND).parsed(_parse)


def _parse(weights: Weights, data: bytes) -> VaeformerModel:
    if "imported_from_sha256" in weights.metadata:
        raise ValueError("these are CRA5's weights: they read its files and code nothing")
    tensors, config = load(data), parse_config(weights.metadata["config"])
    refuse_own(tensors)
    names = _names(weights.metadata["channels"])
    integers = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith(_INTEGERS)}
    channels = Channels(names, integers["channels.mean"], integers["channels.deviation"])
    model = VaeformerModel(
        weights.name,
        hashlib.sha256(data).digest(),
        _network(config, tensors),
        channels,
        integer_network(integers),
        integers["latents.tail"].astype(np.int8),
        integers["hyper.centre"].astype(np.int32),
        integers["hyper.scale"].astype(np.int16),
        integers["hyper.tail"].astype(np.int8),
    )
    counts = {len(model.hyper_centre), len(model.hyper_scale), len(model.hyper_tail)}
    if not len(names) == config.channels == channels.mean.size == channels.deviation.size or not channels.fit():
        raise ValueError(f"{len(names)} names, means or deviations for {config.channels} channels")
    if counts != {config.hyper_latents} or len(model.tails) != config.latents or not config.scale_neurons:
        raise ValueError("its integers are not those of its networks")
    if model.scale_indexes(np.zeros((config.hyper_latents, 1, 1), np.int32), 0, config.kernel, False).ndim != 3:
        raise ValueError("its integer network gives no scales of latents")
    if np.abs(model.hyper_centre).max() > HYPER_MAX or np.abs(model.hyper_scale.astype(int)).max() > SCALE_MAX:
        raise ValueError("hyper-latents have centres or scale indexes beyond reach")
    for tails in (model.tails, model.hyper_tail):
        if tails.min() < 0 or tails.max() >= TAILS:
            raise ValueError(f"tail classes {tails.min()} to {tails.max()}")
    return model
