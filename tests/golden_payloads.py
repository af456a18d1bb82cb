"""Golden payloads, read as they lie in tests/golden: a folder for each version, a file for each kind of content."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
CASES, INPUTS, PAYLOADS, DECODED = "cases.json", "inputs.npz", "payloads.zip", "decoded.npz"
SUFFIX = ".bin"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Golden:
    """One feature of the format: what was compressed, how, the bytes, and what they decode to."""

    version: str
    name: str
    x: Array
    settings: dict[str, Any]  # keywords of isopress.compress
    method: int
    payload: bytes
    decoded: dict[str, Any]  # sha256 of the values, dtype, shape, memory order
    values: Array | None  # of methods that end in floats

    def __str__(self) -> str:
        return f"{self.version}/{self.name}"


def read(folder: Path) -> Iterator[Golden]:
    """Yield what the folder of a version holds, by name."""
    cases = json.loads((folder / CASES).read_text())
    with np.load(folder / INPUTS) as inputs, np.load(folder / DECODED) as decoded, ZipFile(folder / PAYLOADS) as zipped:
        for name, case in sorted(cases.items()):
            values = decoded.get(name)
            yield Golden(folder.name, name, inputs[name], **case, payload=zipped.read(name + SUFFIX), values=values)


def write(folder: Path, written: list[Golden]) -> None:
    """Write the folder of a version, which must not exist."""
    folder.mkdir(parents=True)
    cases = {one.name: {"settings": one.settings, "method": one.method, "decoded": one.decoded} for one in written}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(case)}" for name, case in sorted(cases.items()))
    (folder / CASES).write_text(f"{{\n{lines}\n}}\n")
    np.savez_compressed(folder / INPUTS, **{one.name: one.x for one in written})
    np.savez_compressed(folder / DECODED, **{one.name: one.values for one in written if one.values is not None})
    with ZipFile(folder / PAYLOADS, "w") as zipped:
        for one in written:
            with zipped.open(one.name + SUFFIX, "w") as file:  # with no date in it
                file.write(one.payload)


def all_golden() -> list[Golden]:
    """Return the golden payloads of every version."""
    return [one for folder in sorted(GOLDEN.glob("v*")) for one in read(folder)]
