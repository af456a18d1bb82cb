"""Docstrings as Markdown: what the page of the API is made of.

A line `::: isopress.format.api.compress` of a page becomes the name, its signature and its docstring; of a class the
public methods follow, of a module its classes. MkDocs calls `on_page_markdown`.
"""

import inspect
import pydoc
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

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
