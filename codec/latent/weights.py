"""Weights of the latent codec: integer contexts, which decide about bits, and the transformers around them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isopress.codec.bounded.geometry import FEATURE_MAX
from isopress.codec.entropy.coder import Tables
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, IntegerLayer, IntegerNetwork
from isopress.codec.errors import CorruptPayloadError
from isopress.codec.latent.coefficients import ContextModel
from isopress.codec.latent.context_features import ALONE, RELATED
from isopress.codec.latent.context_maps import BANDS
from isopress.codec.models.registry import Kind, Weights, find, model_id

if TYPE_CHECKING:
    from isopress.codec.latent.transforms import Transforms

DEFAULT = "latent-0.8"  # what the name "default" means to writers; readers go by sha256
KIND: Kind = "latent"

Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class LatentModel:
    """Weights by name and sha256 of their file: contexts, and the transformers as stored."""

    name: str
    sha256: bytes
    contexts: ContextModel
    corrector: dict[str, int | float | bool]  # shape of the transformers
    floats: Tensors

    @cached_property
    def transforms(self) -> Transforms:
        """The transformers of analysis and synthesis, built when first needed: this imports torch."""
        from isopress.codec.latent.transforms import restore

        return restore(self.corrector, self.floats)

    @cached_property
    def contexts_on_torch(self) -> ContextModel:
        """The contexts with their networks run by torch, to the same integers: quicker where torch works anyway."""
        from isopress.codec.entropy.integer_mlp_torch import on_torch

        networks = tuple((on_torch(alone), on_torch(joint)) for alone, joint in self.contexts.networks)
        return replace(self.contexts, networks=networks)


def load_latent(name_or_sha: str = "default") -> LatentModel:
    """Return the weights of this name, or whose sha256 begins with these hexadecimal digits (at least 16).

    Raises
    ------
    ModelNotFoundError
        No such weights are installed.
    """
    return _load(model_id(DEFAULT if name_or_sha == "default" else name_or_sha, KIND))


@cache
def _load(sha256: str) -> LatentModel:
    return find(sha256, KIND).parsed(parse)


def parse(weights: Weights, data: bytes) -> LatentModel:
    """Build a model from a file of weights."""
    return parse_latent(weights.name, data, json.loads(weights.metadata["synthesis"]))


def parse_latent(name: str, data: bytes, corrector: dict[str, int | float | bool]) -> LatentModel:
    """Build a model from the bytes of its safetensors file (SPEC, section Weights)."""
    from safetensors.numpy import load  # here, so that opening a store does not pay for it

    tensors = load(data)
    tables = Tables(tensors["tables.frequencies"].astype(np.float64), tensors["tables.support"].astype(np.int32))
    networks = tuple(_networks(tensors, band) for band in range(BANDS))
    if tensors["contexts.0.0.weight"].shape[1] != ALONE + RELATED:
        raise CorruptPayloadError(f"the weights {name!r} do not have {ALONE + RELATED} features")
    floats = {k: v for k, v in tensors.items() if k.startswith(("analysis.", "synthesis."))}
    contexts = ContextModel(networks, tensors["quiet"].astype(np.int16), tables)
    return LatentModel(name, hashlib.sha256(data).digest(), contexts, corrector, floats)


def _networks(tensors: Tensors, band: int) -> tuple[IntegerNetwork, IntegerNetwork]:
    layers: list[tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int8]]] = []
    while f"contexts.{band}.{len(layers)}.weight" in tensors:
        weight, bias, shift = (tensors[f"contexts.{band}.{len(layers)}.{k}"] for k in ("weight", "bias", "shift"))
        layers.append((weight.astype(np.int8), bias.astype(np.int32), shift.astype(np.int8)))
    return integer_networks(layers)


def integer_networks(
    layers: list[tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int8]]],
) -> tuple[IntegerNetwork, IntegerNetwork]:
    """Return, of layers (weight, bias, shift), the networks for channels alone and for channels with others before.

    The first has no columns for what it does not see.
    """
    built = []
    for columns in (ALONE, ALONE + RELATED):
        parts = []
        for i, (weight, bias, shift) in enumerate(layers):
            limit = ACTIVATION_MAX if i else FEATURE_MAX
            parts.append(IntegerLayer.from_integers(weight if i else weight[:, :columns], bias, shift, input_max=limit))
        built.append(IntegerNetwork(tuple(parts)))
    return built[0], built[1]
