"""Weights by name or sha256, as models: loaded once per process, and verified."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from isopress.codec.bounded.geometry import CONTEXTS, FEATURE_MAX, Context
from isopress.codec.bounded.predictor import PROXY_FEATURES
from isopress.codec.bounded.pyramid import PyramidModel
from isopress.codec.bounded.reference_order import GAPS, KINDS, PROXIES, slots_of
from isopress.codec.entropy.integer_mlp import ACTIVATION_MAX, Conditioning, IntegerLayer, IntegerNetwork
from isopress.codec.entropy.tables import refuse_own
from isopress.codec.models.registry import Weights, find, model_id
from isopress.codec.threads import IMPORTS

# What the name "default" means to writers, for fields alone and for fields with references; readers go by sha256.
DEFAULT, DEFAULT_FOR_BLOCKS = "field-0.9", "block-0.8"
# What precedes the names of networks for level 0 and level 1 alone, which are smaller: most points are there.
FINEST = ("fine.", "middle.")
_OUTPUTS = 3  # of each network


def load_pyramid(name_or_sha: str = "default", *, references: bool = False) -> PyramidModel:
    """Return the pyramid weights of this name, or whose sha256 begins with these hexadecimal digits (at least 16).

    `references` says which weights the name "default" stands for: those for blocks.

    Raises
    ------
    ModelNotFoundError
        No such weights are installed; `registry.find` says where they are looked for.
    """
    return _default(references) if name_or_sha == "default" else _pyramid(model_id(name_or_sha, "pyramid"))


@cache  # looked for once: these files are part of the package
def _default(references: bool) -> PyramidModel:
    return _pyramid(model_id(DEFAULT_FOR_BLOCKS if references else DEFAULT, "pyramid"))


@cache
def _pyramid(sha256: str) -> PyramidModel:
    return find(sha256, "pyramid").parsed(parse)


def parse(weights: Weights, data: bytes) -> PyramidModel:
    """Build a model from a file of weights."""
    return parse_pyramid(weights.name, data)


def parse_pyramid(name: str, data: bytes) -> PyramidModel:
    """Build a model from the bytes of its safetensors file (SPEC, section Weights).

    Raises
    ------
    ValueError
        Networks are missing, tensors do not fit each other, or the file has tables of its own.
    """
    with IMPORTS:  # here, so that opening a store does not pay for it
        from safetensors.numpy import load

    tensors = load(data)
    refuse_own(tensors)
    for group in ("", *FINEST):
        if not group or any(name.startswith(group) for name in tensors):
            _check_networks(tensors, group)
    coarse = _networks(tensors, "")
    networks = (*(_networks(tensors, group) or coarse for group in FINEST), coarse)
    references = all(network.conditioning for level in networks for network in level.values())
    return PyramidModel(name, hashlib.sha256(data).digest(), networks, references)


def _check_networks(tensors: dict[str, np.ndarray], group: str) -> None:
    """Raise ValueError unless a group has a network for each phase, from the features of that to three numbers."""
    for context in CONTEXTS:
        name, layer, width = group + context.name, 0, context.n_features
        shapes = {key: tensor.shape for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        conditioned = [key for key in (f"{name}.kind", f"{name}.gap") if key in shapes]
        width += PROXIES * PROXY_FEATURES if conditioned else 0
        fit = len(conditioned) != 1
        while f"{name}.{layer}.weight" in shapes:
            weight, bias, shift = (shapes.get(f"{name}.{layer}.{part}") for part in ("weight", "bias", "shift"))
            fit &= weight == (out := weight[0] if weight else 0, width) and shift == (out,)
            fit &= bias is not None and len(bias) == 2 and bias[0] > 0 and bias[1] == out
            if not layer and conditioned:
                fit &= shapes[f"{name}.kind"] == (KINDS, out) and shapes[f"{name}.gap"] == (GAPS, out)
            width, layer = out, layer + 1
        if not fit or not layer or width != _OUTPUTS:
            raise ValueError(f"no network of {name} whose tensors fit each other")


def _networks(tensors: dict[str, np.ndarray], group: str) -> dict[str, IntegerNetwork]:
    """Return the networks of a group by phase; none if the file lacks the group."""
    return {c.name: _network(tensors, group, c) for c in CONTEXTS if f"{group}{c.name}.0.weight" in tensors}


def _network(tensors: dict[str, np.ndarray], group: str, context: Context) -> IntegerNetwork:
    name, layers = group + context.name, list[IntegerLayer]()
    kind, gap = tensors.get(f"{name}.kind"), tensors.get(f"{name}.gap")
    more = 0 if kind is None or gap is None else int(np.abs(kind).max()) + int(np.abs(gap).max())
    while f"{name}.{len(layers)}.weight" in tensors:
        part = {k: tensors[f"{name}.{len(layers)}.{k}"] for k in ("weight", "bias", "shift")}
        limit = ACTIVATION_MAX if layers else FEATURE_MAX
        layers.append(
            IntegerLayer.from_integers(
                part["weight"], part["bias"], part["shift"], input_max=limit, more=0 if layers else more
            )
        )
    if kind is None or gap is None:
        return IntegerNetwork(tuple(layers))
    scale = -tensors[f"{name}.0.shift"].astype(np.int32)
    extra = [np.ldexp(x.astype(np.float32), scale) for x in (kind, gap)]
    return IntegerNetwork(tuple(layers), Conditioning(columns_of_kinds(context.n_features), *extra))


def columns_of_kinds(alone: int) -> tuple[tuple[int, ...], ...]:
    """Return, per kind of references, the features that its fields have: `alone` of all fields, then those of
    the proxies that the kind has."""
    kinds = []
    for kind in range(KINDS):
        columns = [*range(alone)]
        for slot in slots_of(kind):
            columns += range(alone + slot * PROXY_FEATURES, alone + (slot + 1) * PROXY_FEATURES)
        kinds.append(tuple(columns))
    return tuple(kinds)
