"""The site builds without a warning, its table of presets is that of the code, and its notebook runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from isopress.format.presets import FALLBACK, QUANTITIES

SITE = Path(__file__).parent.parent / "format" / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that a warning of MkDocs is an error."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(SITE / "mkdocs.yml"), site_dir=str(folder)))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")  # of MkDocs' libraries
def test_the_site_builds_without_a_warning_and_needs_no_other_host(site: Path) -> None:
    for name in ("index", "quick-start", "choosing", "how", "guarantees", "faq", "api", "gallery", "notebook", "spec"):
        text = (site / f"{name}.html").read_text()
        assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?https?://""", text), name
    assert (site / "gallery" / "errors.png").is_file()
    assert (site / "pictures" / "rate_distortion.png").is_file()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_api_has_every_public_name_with_its_parameters(site: Path) -> None:
    import isopress

    text = (site / "api.html").read_text()
    missing = [name for name in isopress.__all__ if name != "__version__" and f">{name}<" not in text]
    assert not missing
    assert "Raises" in text
    assert ":::" not in text
    assert "_SupportsArray" not in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_documents_become_pages_whose_links_lead_to_pages(site: Path) -> None:
    assert 'href="rooms/format.html"' in (site / "index.html").read_text()
    assert 'href="spec.html"' in (site / "index.html").read_text()
    assert "skip:" not in (site / "rooms" / "cli.html").read_text()


def test_the_table_of_presets_is_that_of_the_code() -> None:
    text = (SITE / "pages" / "choosing.md").read_text()
    rows = {
        row[0].strip(): row[1:4] for row in (line.strip("|").split("|") for line in text.splitlines()) if len(row) > 5
    }
    expected = {quantity.label: quantity.bounds for quantity in QUANTITIES} | {"anything else": FALLBACK}
    for label, bounds in expected.items():
        assert tuple(cell.strip(" `") for cell in rows[label]) == tuple(bounds), label


def test_every_cell_of_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = json.loads((SITE / "example.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    for cell in code:
        exec(compile(cell, "example.ipynb", "exec"), names)
    assert names["report"].kept
    assert all(
        cell["outputs"] for cell in cells if cell["cell_type"] == "code" and not cell["source"][-1].endswith(")")
    )
