"""The README runs: every Python block as it stands, every shell block unless it says why not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"```(\w+)(?: (skip: .+))?\n(.*?)```", re.DOTALL)
BLOCKS = [m.groups() for m in BLOCK.finditer(README.read_text())]
VERBS = (
    *(["compress"], ["decompress"], ["info"], ["verify"], ["train", "pyramid"], ["train", "vaeformer"]),
    *(["models", verb] for verb in ("list", "show", "embed", "install")),
    [],
)
PYTHON = [code for language, skipped, code in BLOCKS if language == "python" and not skipped]


@pytest.mark.parametrize("code", PYTHON, ids=[f"block {i}" for i in range(len(PYTHON))])
def test_a_python_block_of_the_readme_runs_without_a_warning(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_opens_with_two_commands():
    first, second = [code for language, _, code in BLOCKS if language == "sh"][:2]
    assert '".[sample]"' in first
    assert "isopress compress sample:era5" in first
    assert '".[test]"' in second
    assert "pytest" in second


def test_every_option_named_in_the_readme_exists():
    help_text = "".join(
        subprocess.run(
            [sys.executable, "-m", "isopress.cli.main", *verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for verb in VERBS
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "".join(c for k, _, c in BLOCKS if k == "sh")))
    assert named
    assert {option for option in named if option not in help_text} == set()
