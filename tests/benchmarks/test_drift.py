"""The drift of decoded values between processes is measured on every method, and what is the same says so."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import drift
from isopress.codec.encoded import Method
from tests.fields import drifting_fields


def test_every_payload_is_decoded_elsewhere_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = (280 + 10 * drifting_fields(2, 24, 30)).astype("f4")

    def decoded_here(folder: Path, settings: dict[str, str]) -> dict[str, np.ndarray]:
        drift.decode(folder)
        with np.load(folder / "decoded.npz") as found:
            return {name: y + np.float32(bool(settings) and "ratio" in name) for name, y in found.items()}

    monkeypatch.setattr(drift, "decoded_elsewhere", decoded_here)
    monkeypatch.setattr(drift, "VARIANTS", {"other": {"A": "1"}})
    found = drift.measure(x)
    assert {row["method"] for row in found} >= {"pyramid", Method.BLOCK.name.lower()}
    assert all(row["kept"] for row in found)
    lines = drift.table(found).splitlines()
    assert lines[2].split("|")[3].strip() == "same"
    assert "e-0" in lines[-1].split("|")[3]
