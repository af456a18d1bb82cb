"""Weights of the latent codec: integer contexts, which decide about bits, and the synthesis transformer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from isopress.codec.bounded.geometry import FEATURE_MAX
from isopress.codec.entropy.coder import SCALE_MAX
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, IntegerLayer, IntegerNetwork
from isopress.codec.entropy.tables import TAILS, refuse_own
from isopress.codec.latent.context_features import ALONE, DEPTHS, INDEXES, RELATED
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.latent.context_model import ContextModel
from isopress.codec.latent.correction import Correction, SynthesisConfig
from isopress.codec.models.registry import Kind, Weights, find, model_id

DEFAULT = "latent-0.8"  # what the name "default" means to writers; readers go by sha256
KIND: Kind = "latent"
OUTPUTS = 3  # of a context network

Tensors = Mapping[str, NDArray[Any]]
Layer = tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int8]]  # weight, bias, shift


@dataclass(frozen=True, eq=False)
class LatentModel:
    """Weights by name and sha256 of their file."""

    name: str
    sha256: bytes
    contexts: ContextModel
    correction: Correction


def load_latent(name_or_sha: str = "default") -> LatentModel:
    """Return the weights of this name, or whose sha256 begins with these hexadecimal digits (at least 16).

    Raises
    ------
    ModelNotFoundError
        No such weights are installed.
    """
    return _default() if name_or_sha == "default" else _load(model_id(name_or_sha, KIND))


@cache  # looked for once: the file is part of the package
def _default() -> LatentModel:
    return _load(model_id(DEFAULT, KIND))


@cache
def _load(sha256: str) -> LatentModel:
    return find(sha256, KIND).parsed(parse)


def parse(weights: Weights, data: bytes) -> LatentModel:
    """Build a model from a file of weights."""
    return parse_latent(weights.name, data, json.loads(weights.metadata["synthesis"]))


def parse_latent(name: str, data: bytes, synthesis: Mapping[str, Any]) -> LatentModel:
    """Build a model from the bytes of its safetensors file (SPEC, section Weights) and the shape of its synthesis."""
    tensors = load(data)
    refuse_own(tensors)
    networks = []
    for band in range(BANDS):
        layers = list[Layer]()
        while f"contexts.{band}.{len(layers)}.weight" in tensors:
            weight, bias, shift = (tensors[f"contexts.{band}.{len(layers)}.{k}"] for k in ("weight", "bias", "shift"))
            layers.append((weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.int8)))
        networks.append(integer_networks(layers))
    contexts = ContextModel(tuple(networks), _quiet(tensors["quiet"]))
    return LatentModel(
        name, hashlib.sha256(data).digest(), contexts, Correction.restore(SynthesisConfig(**synthesis), tensors)
    )


def _quiet(table: NDArray[Any]) -> NDArray[np.int16]:
    """Return what is known of quiet points.

    Raises
    ------
    ValueError
        It has another shape, a scale index beyond reach, or a tail class that is none.
    """
    scales, tails = table[:, :, 0], table[:, :, 1]
    if table.shape[:3] != (BANDS, DEPTHS, 2) or not 1 <= table.shape[3] <= INDEXES:
        raise ValueError(f"quiet points of {table.shape}")
    if np.abs(scales.astype(np.int64)).max() > SCALE_MAX or tails.min() < 0 or tails.max() >= TAILS:
        raise ValueError("quiet points have scale indexes or tail classes that there are not")
    return table.astype(np.int16)


def integer_networks(layers: list[Layer]) -> tuple[IntegerNetwork, IntegerNetwork]:
    """Return, of layers (weight, bias, shift), the networks for channels alone and for channels with others before.

    The first has no columns for what it does not see.

    Raises
    ------
    ValueError
        They do not lead from features to a mean, a scale index and a tail class.
    """
    widths = [ALONE + RELATED, *(len(weight) for weight, _, _ in layers)]
    if widths[-1] != OUTPUTS or any(part[0].shape[1:] != (n,) for n, part in zip(widths, layers, strict=False)):
        raise ValueError(f"a context network with layers of {[part[0].shape for part in layers]}")
    built = []
    for columns in (ALONE, ALONE + RELATED):
        parts = []
        for i, (weight, bias, shift) in enumerate(layers):
            limit = ACTIVATION_MAX if i else FEATURE_MAX
            parts.append(IntegerLayer.from_integers(weight if i else weight[:, :columns], bias, shift, input_max=limit))
        built.append(IntegerNetwork(tuple(parts)))
    return built[0], built[1]
