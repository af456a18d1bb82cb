"""The pictures of a comparison as files."""

import re
from pathlib import Path

from isopress.format.report.compare import figures
from isopress.format.report.compare.records import CompareReport


def save_pictures(report: CompareReport, folder: Path) -> list[Path]:
    """Write every map and curve as a PNG file, named after variable, picture and field; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for variable in report.variables:
        name = re.sub(r"[^\w.-]+", "_", variable.name).strip("_")
        drawn = [
            (f"{kind}-{place}", png) for place, (_, maps) in enumerate(figures.maps(variable)) for kind, _, png in maps
        ]
        for kind, png in [*drawn, *((kind, png) for kind, _, png in figures.curves(variable))]:
            path = folder / f"{name}-{kind}.png"
            path.write_bytes(png)
            written.append(path)
    return written
