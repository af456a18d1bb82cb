"""Maps and curves of a comparison as small PNG files, drawn by matplotlib."""

import re
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from isopress.codec.limits import Bound, Target
from isopress.format.report.compare.grid import Grid
from isopress.format.report.compare.metrics import HISTOGRAM_BINS
from isopress.format.report.compare.records import CompareReport, Comparison
from isopress.format.report.compare.spectra import ALLOWED, SHORTEST, Spectrum
from isopress.format.report.words import degrees

Array = np.ndarray[Any, Any]
Picture = tuple[str, str, bytes]  # what it shows, as a name and as a sentence; PNG

_DPI = 120
_COLOURS = 128  # of a picture: a quarter of the bytes of true colour
_ERRORS = "PuOr_r"
_ORIGINAL, _DECODED, _ERROR, _LIMIT = "#1f4e79", "#d1661f", "#7a1f3d", "#888888"
_STYLE: dict[str, Any] = {"labelsize": 8}
_MARGINS = {"left": 0.15, "right": 0.97, "top": 0.93, "bottom": 0.14}


def maps(variable: Comparison) -> list[tuple[str, list[Picture]]]:
    """Return, for each field, its label and maps of the original, the decoded field and the error."""
    if not variable.frames:
        return []
    pooled = np.concatenate([frame.original[np.isfinite(frame.original)] for frame in variable.frames])
    low, high = np.percentile(pooled, [0.5, 99.5]) if pooled.size else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.2 * max(-low, high):
        low, high = -max(-low, high), max(-low, high)
    scale = _error_scale(variable)
    values = "RdBu_r" if low == -high else "viridis"
    drawn = (
        ("original", "Original", _maps([f.original for f in variable.frames], variable, (low, high), values)),
        ("decoded", "Decoded", _maps([f.decoded for f in variable.frames], variable, (low, high), values)),
        (
            "error",
            "Error: decoded - original",
            _maps([f.error for f in variable.frames], variable, (-scale, scale), _ERRORS),
        ),
    )
    return [
        (frame.label, [(name, title, pictures[place]) for name, title, pictures in drawn])
        for place, frame in enumerate(variable.frames)
    ]


def curves(variable: Comparison) -> list[Picture]:
    """Return the histogram of errors, spectra, errors by latitude and the surroundings of the largest error."""
    pictures = [("histogram", "Errors, and the bound", _histogram(variable))]
    for name, title, spectrum in (
        ("zonal", "Power along longitude, and its ratio", variable.zonal),
        ("cosine", "Power of the cosine transform in both directions, and its ratio", variable.cosine),
    ):
        if spectrum is not None:
            pictures.append((name, title, _spectrum(spectrum)))
    if variable.merit.row_rmse.size > 2:
        pictures.append(("latitude", "Errors by latitude", _by_row(variable)))
    if variable.zoom is not None and variable.merit.max_error:
        pictures.append(("zoom", _zoom_title(variable), _zoom(variable)))
    return pictures


def _error_scale(variable: Comparison) -> float:
    limit = variable.limit
    if isinstance(limit, Bound) and limit.mode == "abs" and limit.value:
        return limit.value
    errors = np.concatenate([np.abs(frame.error[np.isfinite(frame.error)]) for frame in variable.frames])
    return float(np.percentile(errors, 99.5)) or float(errors.max(initial=0)) or 1.0


def _maps(fields: list[Array], variable: Comparison, limits: tuple[float, float], colours: str) -> list[bytes]:
    """Return a map of each field, all alike: only what is inside is drawn anew."""
    grid = variable.grid
    extent = grid.extent
    rows, columns = fields[0].shape
    shape = rows / columns if extent is None else abs(extent[3] - extent[2]) / max(abs(extent[1] - extent[0]), 1e-9)
    height = max(1.9, min(5.6, 4.4 * shape + 0.75))
    figure = Figure(figsize=(4.8, height), dpi=_DPI)
    axes = figure.add_axes(
        (0.08, 0.73 / height, 0.90, 1 - 0.78 / height)
    )  # fixed: laying out takes longer than drawing
    axes.set_facecolor("#dddddd")
    image = axes.imshow(
        fields[0], cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, aspect="auto", interpolation="nearest"
    )
    if extent is None:
        axes.set_xticks([])
        axes.set_yticks([])
    else:
        _coast(axes, grid)
        axes.tick_params(**_STYLE)
    place = figure.add_axes((0.08, 0.40 / height, 0.90, 0.09 / height))
    bar = figure.colorbar(image, cax=place, orientation="horizontal", extend="both", ticks=MaxNLocator(6))
    bar.ax.tick_params(**_STYLE)
    bar.set_label(variable.units, fontsize=8)
    pictures = []
    for values in fields:
        image.set_data(values)
        pictures.append(_png(figure))
    return pictures


def _coast(axes: Any, grid: Grid) -> None:
    """Draw coastlines, as often as the globe comes round inside the map."""
    extent = grid.extent
    assert extent is not None, "drawn only on maps with latitudes and longitudes"
    west, east = sorted(extent[:2])
    lines = coastline()
    for turn in (-360, 0, 360):
        if west - 180 < turn + 180 and turn - 180 < east + 180:
            axes.plot(
                lines[:, 0] + turn, lines[:, 1], color="black", linewidth=0.5, alpha=0.8, scalex=False, scaley=False
            )
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])


def coastline() -> Array:
    """Return coastlines as points (longitude, latitude), lines parted by NaN."""
    with files("isopress.format.report.compare").joinpath("coastline.npz").open("rb") as file, np.load(file) as stored:
        points, lengths = stored["points"] / 100.0, stored["lengths"]
    return np.asarray(np.insert(points, np.cumsum(lengths, dtype=np.int64), np.nan, axis=0))


def _histogram(variable: Comparison) -> bytes:
    merit, limit = variable.merit, variable.limit
    figure, axes = _axes()
    centres = np.linspace(-1.1, 1.1, HISTOGRAM_BINS + 1)
    middles = (centres[1:] + centres[:-1]) / 2 * merit.scale
    share = 100 * merit.histogram / max(merit.values, 1)
    axes.bar(middles, share, width=2.2 / HISTOGRAM_BINS * merit.scale, color=_ERROR)
    if isinstance(limit, Bound) and limit.mode == "abs" and limit.value:
        for sign in (-1, 1):
            axes.axvline(sign * limit.value, color="black", linestyle="--", linewidth=1)
        axes.set_title(f"bound {limit.value:g} {variable.units}", fontsize=8)
    if isinstance(limit, Target) and limit.rmse:
        axes.axvline(limit.rmse, color="black", linestyle="--", linewidth=1)
        axes.set_title(f"RMSE asked for: {limit.rmse:g} {variable.units}", fontsize=8)
    axes.set_xlabel(f"error ({variable.units})", fontsize=8)
    axes.set_ylabel("values (%)", fontsize=8)
    return _png(figure)


def _spectrum(spectrum: Spectrum) -> bytes:
    figure = Figure(figsize=(4.8, 3.4), dpi=_DPI)
    figure.subplots_adjust(**_MARGINS, hspace=0.12)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.loglog(spectrum.wavelengths, spectrum.original, color=_ORIGINAL, linewidth=2.2, label="original")
    above.loglog(spectrum.wavelengths, spectrum.decoded, color=_DECODED, linewidth=1, linestyle="--", label="decoded")
    above.set_ylabel("power", fontsize=8)
    above.legend(fontsize=8, frameon=False)
    below.axhspan(1 - ALLOWED, 1 + ALLOWED, color="#cfe3cf", label=f"within {ALLOWED:.0%}")
    below.axvline(SHORTEST, color=_LIMIT, linestyle=":", linewidth=1, label=f"{SHORTEST:g} cells")
    below.semilogx(spectrum.wavelengths, np.clip(spectrum.ratio, 0, 2), color=_DECODED)
    below.set_ylim(*_around_one(spectrum.ratio))
    below.set_ylabel("ratio", fontsize=8)
    below.set_xlabel("wavelength (grid cells)", fontsize=8)
    below.legend(fontsize=7, frameon=False, loc="lower left", ncols=2)
    below.invert_xaxis()
    for axes in (above, below):
        _tidy(axes)
    return _png(figure)


def _around_one(ratio: Array) -> tuple[float, float]:
    far = max(0.12, min(1.0, 1.2 * float(np.abs(ratio - 1).max(initial=0))))
    return 1 - far, 1 + far


def _by_row(variable: Comparison) -> bytes:
    figure, axes = _axes()
    merit, lat = variable.merit, variable.grid.lat
    along = np.arange(merit.row_rmse.size) if lat is None else lat
    axes.plot(along, merit.row_max, color=_ERROR, linewidth=1, label="largest")
    axes.plot(along, merit.row_rmse, color=_ORIGINAL, linewidth=1.5, label="RMSE")
    axes.set_xlabel("row" if lat is None else "latitude (degrees north)", fontsize=8)
    axes.set_ylabel(f"error ({variable.units})", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def _zoom_title(variable: Comparison) -> str:
    zoom, worst = variable.zoom, variable.merit.worst
    assert zoom is not None, "drawn only where there is one"
    assert worst is not None, "and then there is an error"
    place = f"row {worst.row}, column {worst.column}"
    if variable.grid.lat is not None and variable.grid.lon is not None:
        lat, lon = degrees(variable.grid.lat[worst.row], "N", "S"), degrees(variable.grid.lon[worst.column], "E", "W")
        place = f"{lat}, {lon}"
    when = f" at {zoom.label}" if zoom.label else ""
    values = f"{worst.original:.6g} became {worst.decoded:.6g} {variable.units}"
    return f"Largest error{when}, {place}: {values}"


def _zoom(variable: Comparison) -> bytes:
    zoom = variable.zoom
    assert zoom is not None, "drawn only where there is one"
    figure = Figure(figsize=(4.8, 2.3), dpi=_DPI)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.08, wspace=0.08)
    error = zoom.decoded.astype(np.float64) - zoom.original
    finite = zoom.original[np.isfinite(zoom.original)]
    limits = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    far = float(np.nanmax(np.abs(error), initial=0.0)) or 1.0
    panels = (
        ("original", zoom.original, limits, "viridis"),
        ("decoded", zoom.decoded, limits, "viridis"),
        ("error", error, (-far, far), _ERRORS),
    )
    for axes, (title, values, (low, high), colours) in zip(figure.subplots(1, 3), panels, strict=True):
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.plot(zoom.column, zoom.row, "s", mfc="none", mec="red", markersize=7)
        axes.set_title(title, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03, ticks=MaxNLocator(3))
        bar.ax.tick_params(labelsize=6)
    return _png(figure)


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.8, 3.4), dpi=_DPI)
    figure.subplots_adjust(**_MARGINS)
    axes = figure.add_subplot()
    _tidy(axes)
    return figure, axes


def _tidy(axes: Any) -> None:
    axes.minorticks_off()
    axes.tick_params(**_STYLE)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = BytesIO()
    picture.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def save_pictures(report: CompareReport, folder: Path) -> list[Path]:
    """Write every map and curve as a PNG file, named after variable, picture and field; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for variable in report.variables:
        name = re.sub(r"[^\w.-]+", "_", variable.name).strip("_")
        drawn = [(f"{kind}-{place}", png) for place, (_, found) in enumerate(maps(variable)) for kind, _, png in found]
        for kind, png in [*drawn, *((kind, png) for kind, _, png in curves(variable))]:
            path = folder / f"{name}-{kind}.png"
            path.write_bytes(png)
            written.append(path)
    return written
