"""Every golden payload decodes by SPEC.md alone: the second decoder gets the values that isopress got."""

import json
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from tests.golden_payloads import GOLDEN, Golden, all_golden
from tests.spec import reader, values
from tests.spec.entropy import Tensors

FOLDERS_OF_MODELS = (Path(str(files("isopress.codec.models"))), GOLDEN / "models")


@cache
def weights(model: bytes) -> tuple[dict[str, Any], Tensors]:
    """Return the configuration of networks and the tensors of the weights with this model id (SPEC chapter 9)."""
    paths = (path for folder in FOLDERS_OF_MODELS for path in folder.glob("*.safetensors"))
    path = next(path for path in paths if sha256(path.read_bytes()).digest().startswith(model))
    with safe_open(path, "np") as file:  # type: ignore[no-untyped-call]
        metadata = file.metadata() or {}
    return json.loads(metadata.get("config") or metadata.get("synthesis", "{}")), load(path.read_bytes())


@cache
def tensors_of(name: str) -> Tensors:
    return load((FOLDERS_OF_MODELS[0] / f"{name}.safetensors").read_bytes())


@pytest.mark.parametrize("one", all_golden(), ids=str)
def test_a_golden_payload_decodes_by_the_spec_alone(one: Golden) -> None:
    parsed = reader.parse(one.payload)
    y = values.decode(parsed, weights)
    assert (y.dtype.str, list(y.shape)) == (one.decoded["dtype"], one.decoded["shape"])
    assert y.flags.f_contiguous if one.decoded["order"] == "F" else y.flags.c_contiguous
    if one.values is not None:  # not the same to the last bit on every machine
        finite = np.isfinite(one.values)
        assert y[~finite].tobytes() == one.values[~finite].tobytes()
        np.testing.assert_allclose(y[finite], one.values[finite], rtol=1e-5, atol=1e-4 * one.values[finite].std())
    else:
        assert sha256(y.astype(y.dtype.newbyteorder("<")).tobytes()).hexdigest() == one.decoded["sha256"]
