"""Fixtures that more than one file of tests uses."""

import sys
from pathlib import Path

import pytest

from tests.model_folders import MINE, put


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who has no weights yet, and no other folder but that of the package."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("ISOPRESS_MODELS", raising=False)
    return tmp_path / "data" / "isopress" / "models"


@pytest.fixture
def extra(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the environment variable names, with weights called `mine`."""
    folder = tmp_path / "extra"
    put(folder, "mine", MINE)
    monkeypatch.setenv("ISOPRESS_MODELS", str(folder))
    return folder
