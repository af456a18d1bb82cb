"""A store in words, as `ncdump -h` shows a file: dimensions, coordinates, variables and how each is kept."""

from collections.abc import Iterator

from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.report.words import bound_text, count, ratio_text, size, with_units


def describe(report: StoreReport) -> str:
    """Return the store as lines of text."""
    lines = [heading(report), f"  {sizes_text(report)}", ""]
    if report.sizes:
        lines += ["dimensions", *_columns(_dimensions(report)), ""]
    lines.append("variables")
    lines += (line for variable in report.variables for line in _variable(variable))
    return "\n".join(lines)


def heading(report: StoreReport) -> str:
    """Return what the store is and whether it is complete."""
    parts = [f"Zarr {report.zarr_format}", state(report)]
    if version := report.written.get("version"):
        parts.append(f"isopress {version}")
    if source := report.written.get("source"):
        parts.append(f"from {source}")
    if preset := report.written.get("preset"):
        parts.append(f"preset {preset}")
    return f"{report.path}: {', '.join(parts)}"


def state(report: StoreReport) -> str:
    """Return whether the store is complete, or what it lacks, in words."""
    if report.unfinished:
        return report.unfinished
    absent = sum(variable.absent for variable in report.variables)
    return "complete" if not absent else f"{count(absent, 'chunk')} absent"


def sizes_text(report: StoreReport) -> str:
    """Return the sizes before and after, and how much of it are weights."""
    text = f"{size(report.original_nbytes)} -> {size(report.stored_nbytes)}, {ratio_text(report.ratio)}"
    return text + (f" ({size(report.models_nbytes)} of it weights)" if report.models_nbytes else "")


def _dimensions(report: StoreReport) -> Iterator[tuple[str, str, str]]:
    by_name = {variable.name: variable for variable in report.variables}
    for dim, length in report.sizes.items():
        yield dim, str(length), ends_text(by_name.get(dim))


def ends_text(variable: VariableReport | None) -> str:
    """Return the first and last value of a coordinate, with its unit unless they are dates."""
    if variable is None or variable.ends is None:
        return ""
    first, last = variable.ends
    units = "" if " since " in variable.units else variable.units
    between = first if first == last else f"{first} to {last}"
    return f"{between} {units}".strip()


def _variable(variable: VariableReport) -> Iterator[str]:
    named = f"{variable.name} ({', '.join(variable.dims)}) {variable.dtype}"
    if variable.bound is None:
        yield f"  {named}  exact, {layout_text(variable)}"
        return
    yield f"  {named}  {variable.long_name}".rstrip()
    yield f"      {promise_text(variable)}"
    models = f"; model {', '.join(model[:8] for model in variable.models)}" if variable.models else ""
    yield f"      {layout_text(variable)}{models}"


def promise_text(variable: VariableReport) -> str:
    """Return the bound or target, and the errors that were achieved."""
    text = bound_text(variable)
    if variable.max_error is not None and variable.rmse is not None:
        errors = (with_units(error, variable.units) for error in (variable.max_error, variable.rmse))
        text += ": largest error {}, RMSE {}".format(*errors)
    if variable.headers_read:
        text += f" (headers of {count(variable.headers_read, 'chunk')})"
    if variable.headers_damaged:
        text += f"; {count(variable.headers_damaged, 'header')} DAMAGED"
    if variable.missed_chunks:
        text += f"; {count(variable.missed_chunks, 'chunk')} off by over 3 %"
    return text


def layout_text(variable: VariableReport) -> str:
    """Return how the values are cut and how large they are, before and after."""
    nbytes = f"{size(variable.original_nbytes)} -> {size(variable.stored_nbytes)}, {ratio_text(variable.ratio)}"
    if not variable.shape:
        return nbytes
    chunks = f"chunks {_by(variable.chunks)}"
    if variable.shards:
        chunks += f" in shards {_by(variable.shards)}"
    absent = f", {variable.absent} of {variable.objects_expected} ABSENT" if variable.absent else ""
    return f"{_by(variable.shape)} in {chunks}{absent}; {nbytes}"


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _columns(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    found = list(rows)
    names, lengths = (max(len(row[place]) for row in found) for place in (0, 1))
    return [f"  {name:<{names}}  {length:>{lengths}}  {ends}".rstrip() for name, length, ends in found]
