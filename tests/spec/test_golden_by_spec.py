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

from tests.spec import reader, vaeformer, values
from tests.spec.entropy import Tensors

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "golden").glob("v*/*/payload.bin"))
PATCHES = (8, 9)  # methods of which integers alone are fixed
FLOATING = (5, 6)  # methods that are not the same to the last bit on every machine


MODELS = Path(str(files("isopress.codec.models")))


@cache
def weights(model: bytes) -> tuple[dict[str, Any], Tensors]:
    """Return the shape of the synthesis and the tensors of the weights with this model id (SPEC chapter 9)."""
    name = next(p.stem for p in MODELS.glob("*.safetensors") if sha256(p.read_bytes()).digest().startswith(model))
    with safe_open(MODELS / f"{name}.safetensors", "np") as file:  # type: ignore[no-untyped-call]
        return json.loads((file.metadata() or {}).get("synthesis", "{}")), tensors_of(name)


@cache
def patch_weights(model: bytes) -> tuple[dict[str, Any], Tensors]:
    """Return the configuration and the tensors of a VAEformer's weights with this model id."""
    paths = (Path(__file__).parents[1] / "golden" / "models").glob("*.safetensors")
    path = next(p for p in paths if sha256(p.read_bytes()).digest().startswith(model))
    with safe_open(path, "np") as file:  # type: ignore[no-untyped-call]
        return json.loads(file.metadata()["config"]), load(path.read_bytes())


@cache
def tensors_of(name: str) -> Tensors:
    return load((MODELS / f"{name}.safetensors").read_bytes())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_a_golden_payload_decodes_by_the_spec_alone(folder: Path) -> None:
    parsed = reader.parse((folder / "payload.bin").read_bytes())
    if parsed.method in PATCHES:  # their checksum says whether the integers are right
        config, tensors = patch_weights(parsed.models[0])
        vaeformer.symbols(parsed.sections[13], tuple(parsed.shape), config, tensors)
        return
    y = values.decode(parsed, weights)
    expected = json.loads((folder / "config.json").read_text())["decoded"]
    assert (y.dtype.str, list(y.shape)) == (expected["dtype"], expected["shape"])
    assert y.flags.f_contiguous if expected["order"] == "F" else y.flags.c_contiguous
    if parsed.method in FLOATING:
        recorded = np.load(folder / "decoded.npy")
        finite = np.isfinite(recorded)
        assert y[~finite].tobytes() == recorded[~finite].tobytes()
        np.testing.assert_allclose(y[finite], recorded[finite], rtol=1e-5, atol=1e-4 * recorded[finite].std())
    else:
        assert sha256(y.astype(y.dtype.newbyteorder("<")).tobytes()).hexdigest() == expected["sha256"]
