"""Every payload ever released decodes to the values it decoded to when it was written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isopress
from isopress.codec.encoded import Method
from tests.contract import assert_kept
from tests.make_golden import FLOATING, GOLDEN, digest, features, main

FOLDERS = sorted(path.parent for path in GOLDEN.glob("v*/*/payload.bin"))
NEWEST = "v{}.{}".format(*isopress.inspect(isopress.compress(0.0, mode="lossless")).version)


def config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return loaded


def test_every_feature_and_method_of_this_version_has_a_golden_payload() -> None:
    folders = [folder for folder in FOLDERS if folder.parent.name == NEWEST]
    assert {folder.name for folder in folders} == set(features())
    assert {config(folder)["method"] for folder in folders} == set(Method)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_a_golden_payload_decodes_to_the_recorded_values(folder: Path) -> None:
    y = isopress.decompress((folder / "payload.bin").read_bytes())
    expected = config(folder)["decoded"]
    assert (y.dtype.str, list(y.shape)) == (expected["dtype"], expected["shape"])
    if config(folder)["method"] in FLOATING:
        recorded = np.load(folder / "decoded.npy")
        finite = np.isfinite(recorded)
        assert y[~finite].tobytes() == recorded[~finite].tobytes()
        np.testing.assert_allclose(y[finite], recorded[finite], rtol=1e-5, atol=1e-4 * recorded[finite].std())
    else:
        assert digest(y) == expected["sha256"]
    assert y.flags.f_contiguous if expected["order"] == "F" else y.flags.c_contiguous
    settings = config(folder)["settings"]
    for name in ("effort", "model"):
        settings.pop(name, None)
    assert_kept(np.load(folder / "input.npy"), y, **settings)


def test_golden_payloads_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NEWEST).mkdir()
    assert main(tmp_path) == 1
    assert "kept for ever" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / NEWEST]
