"""Weights by name or sha256: files in the package, loaded once per process and verified."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np

from isopress.codec.contexts import CONTEXTS, FEATURE_MAX
from isopress.codec.entropy import Tables
from isopress.codec.errors import ModelNotFoundError
from isopress.codec.intnet import ACTIVATION_MAX, IntegerLayer, IntegerNetwork
from isopress.codec.predictor import NumpyPredictor
from isopress.codec.pyramid import PyramidModel

DEFAULT = "pyramid-0.1"  # what the name "default" means to writers; readers go by sha256
_SUFFIX = ".safetensors"


def load_pyramid(name_or_sha: str = "default") -> PyramidModel:
    """Return the pyramid weights of this name, or whose sha256 begins with these hexadecimal digits.

    Raises
    ------
    ModelNotFoundError
        No such weights are installed.
    """
    name = DEFAULT if name_or_sha == "default" else name_or_sha
    available = installed()
    if name in available:
        return _load(name)
    matches = [n for n, digest in available.items() if len(name) >= 16 and digest.startswith(name.lower())]
    if len(matches) == 1:
        return _load(matches[0])
    raise ModelNotFoundError(
        f"no pyramid weights {name!r}; installed are {', '.join(sorted(available)) or 'none'}. "
        "Install the isopress version that wrote the data, or a newer one"
    )


@cache
def installed() -> dict[str, str]:
    """Return name -> sha256 (hex) of every weights file in the package."""
    found = (f for f in files("isopress.codec").joinpath("models").iterdir() if f.name.endswith(_SUFFIX))
    return {f.name.removesuffix(_SUFFIX): hashlib.sha256(f.read_bytes()).hexdigest() for f in found}


@cache
def _load(name: str) -> PyramidModel:
    data = files("isopress.codec").joinpath("models", name + _SUFFIX).read_bytes()
    return parse_pyramid(name, data)


def parse_pyramid(name: str, data: bytes) -> PyramidModel:
    """Build a model from the bytes of its safetensors file (SPEC, section Weights)."""
    from safetensors.numpy import load  # here, so that opening a store does not pay for it

    tensors = load(data)
    networks = {c.name: _network(tensors, c.name) for c in CONTEXTS}
    tables = Tables(tensors["tables.frequencies"].astype(np.float64), tensors["tables.support"].astype(np.int32))
    return PyramidModel(name, hashlib.sha256(data).digest(), NumpyPredictor(networks), tables)


def _network(tensors: dict[str, np.ndarray], name: str) -> IntegerNetwork:
    layers: list[IntegerLayer] = []
    while f"{name}.{len(layers)}.weight" in tensors:
        part = {k: tensors[f"{name}.{len(layers)}.{k}"] for k in ("weight", "bias", "shift")}
        limit = ACTIVATION_MAX if layers else FEATURE_MAX
        layers.append(IntegerLayer.from_integers(part["weight"], part["bias"], part["shift"], input_max=limit))
    return IntegerNetwork(tuple(layers))
