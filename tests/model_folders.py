"""Folders of weights, and the command line, for the tests of models."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from safetensors.numpy import load, save

from isopress.cli.main import main
from isopress.codec.models.registry import PACKAGE_FOLDER, SUFFIX

SHIPPED = (PACKAGE_FOLDER / f"field-0.9{SUFFIX}").read_bytes()


def pyramid(note: str) -> bytes:
    """Return weights that are the shipped ones but for a note, so that no folder has them."""
    return save(load(SHIPPED), metadata={"kind": "pyramid", "note": note})


def latent() -> bytes:
    return save({"a": np.zeros(3, "f4")}, metadata={"kind": "latent"})


MINE = pyramid("mine")
MINE_ID = sha256(MINE).hexdigest()


def put(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{SUFFIX}"
    path.write_bytes(content)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def in_a_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)
