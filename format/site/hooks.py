"""What MkDocs calls: pages are made of the repository's documents, with links that lead to each other.

The READMEs and other documents are the source; nothing of them is copied by hand. A link to a file that is no page
becomes its name.
"""

import inspect
import json
import os
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("codec", "format", "cli", "benchmarks")
DOCUMENTS = {  # of the repository -> of the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "format/SPEC.md": "spec.md",
    "format/GUARANTEES.md": "guarantees.md",
    "format/SECURITY.md": "security.md",
    "format/RECIPES.md": "recipes.md",
    "benchmarks/RESULTS.md": "results.md",
    "benchmarks/results/CASES.md": "cases.md",
    "format/site/example.ipynb": "notebook.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```(?:python|sh)) skip: [^\n]+$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what this copy of the repository lacks."""
    found = {*pages().values(), *(path.name for path in Path(config.docs_dir).glob("*.md"))}
    config.nav = [_found(entry, found) for entry in config.nav or []]
    return config


def _found(entry: dict[str, Any], found: set[str]) -> dict[str, Any]:
    """Return an entry of the navigation with those of its pages that were found."""
    ((title, below),) = entry.items()
    if isinstance(below, str):
        return entry
    return {title: [page for page in below if next(iter(page.values())) in found]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the repository, and the pictures that they show."""
    sources = pages()
    for source, uri in sources.items():
        path = ROOT / source
        text = notebook(path) if path.suffix == ".ipynb" else path.read_text()
        files.append(File.generated(config, uri, content=FENCE.sub(r"\1", relinked(text, source, uri, sources))))
        for picture in pictures(text, path):
            asset = File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture))
            if asset.src_uri not in files.src_uris:
                files.append(asset)
    return files


def pages() -> dict[str, str]:
    """Return which documents there are, and their places in the site."""
    found = {source: uri for source, uri in DOCUMENTS.items() if (ROOT / source).is_file()}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("README.md")):
            folder = path.parent.relative_to(ROOT).as_posix()
            found[f"{folder}/README.md"] = f"rooms/{folder.replace('/', '-')}.md"
    for path in sorted((ROOT / "codec" / "models").glob("*.md")):
        if path.name != "README.md":
            found[path.relative_to(ROOT).as_posix()] = f"models/{path.name}"
    return found


def relinked(text: str, source: str, uri: str, sources: dict[str, str]) -> str:
    """Return `text` of the document `source` with links that hold at `uri` in the site."""

    def link(match: re.Match[str]) -> str:
        picture, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target:
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if (ROOT / path).is_dir():
            path = f"{path}/README.md"
        if picture:
            return f"![{label}]({_from(uri, 'pictures/' + Path(path).name)})"
        if path in sources:
            return f"[{label}]({_from(uri, sources[path])}{anchor})"
        return label if "`" in label else f"`{label}`"

    return LINK.sub(link, text)


def pictures(text: str, path: Path) -> Iterator[Path]:
    """Yield the files of the pictures that a document shows."""
    for match in LINK.finditer(text):
        if match[1] and "://" not in match[3]:
            yield (path.parent / match[3]).resolve()


def notebook(path: Path) -> str:
    """Return a notebook as a page: its text, its code, and the outputs that it holds."""
    return "\n\n".join("\n\n".join(_cell(cell)) for cell in json.loads(path.read_text())["cells"])


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "text/html" in data and "xr-wrap" not in "".join(data["text/html"]):  # which needs the styles of Jupyter
            yield f"<div>{''.join(data['text/html'])}</div>".replace("\n", " ")
        elif "image/png" in data:
            yield f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
        else:
            yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


def _from(uri: str, target: str) -> str:
    return os.path.relpath(target, os.path.dirname(uri) or ".")


DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^(?=\S)", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its directives replaced.

    Raises
    ------
    LookupError
        A directive names nothing that can be imported.
    """
    return DIRECTIVE.sub(lambda match: "\n\n".join(_described(match[1])), markdown)


def _described(name: str) -> Iterator[str]:
    found: Any = pydoc.locate(name)
    if found is None:
        raise LookupError(f"{name} cannot be imported")
    if isinstance(found, ModuleType):
        for each in vars(found).values():
            if inspect.isclass(each) and each.__module__ == name:
                yield from _one(each, f"{each.__name__}({each.__bases__[0].__name__})", "###")
        return
    yield from _one(found, _signature(found, name.rsplit(".", 1)[1]), "###")
    if inspect.isclass(found):
        for method, each in vars(found).items():
            if inspect.isfunction(each) and not method.startswith("_") and each.__doc__:
                yield from _one(each, _signature(each, method), "####")


def _one(found: Any, signature: str, heading: str) -> Iterator[str]:
    yield f"{heading} `{found.__name__}`"
    yield f"```python\n{signature}\n```"
    first, *sections = _SECTION.split(inspect.cleandoc(found.__doc__ or ""))
    yield first.strip()
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        yield f"**{title}**"
        yield body.strip() if title in ("Notes", "Examples", "References") else "\n".join(_entries(body))


def _entries(body: str) -> Iterator[str]:
    """Yield a list item for each `name : type` and the indented lines that follow it."""
    for entry in _ENTRY.split(body.strip()):
        if entry:
            head, _, text = entry.partition("\n")
            name, _, kind = head.partition(" : ")
            yield f"* `{name}`{f', {kind}' if kind else ''}: {inspect.cleandoc(text)}".replace("\n", "\n  ")


def _signature(found: Any, name: str) -> str:
    """Return name and parameters, one to a line where they are many, without the modules of types."""
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(inspect.signature(found)))
    if len(text) <= 80:
        return f"{name}{text}"
    depth, parts, start = 0, [], 1
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(_shorter(text[start:at].strip()))
            start = at + 1
        if depth == 0:
            break
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts if part) + f"){text[start:]}"


def _shorter(parameter: str) -> str:
    """Return a parameter with numpy's union of all that becomes an array by its name."""
    return f"{parameter.partition(':')[0]}: ArrayLike" if "_SupportsArray" in parameter else parameter
