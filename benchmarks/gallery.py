"""The gallery's figures: `python -m benchmarks.gallery`.

Fields, what they decode to, and their errors, one pixel or more to a value, so that blocks, stripes or a grid would
show. Writes PNG files of few colours into the pages of the site.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import isopress
from benchmarks.datasets.public import PUBLIC, Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.fidelity import UNITS
from isopress.format.payload import METHODS
from isopress.format.presets import PRESETS, Preset, preset_bound

PAGES = Path(__file__).parent.parent / "format" / "site" / "pages" / "gallery"
TIMES = 9  # of the sample, which are coded together; the middle one is shown
ROWS, COLUMNS = 180, 240  # of what is shown of a field
SHOWN = (  # beside their originals
    "native u850, science (pyramid)",
    "native msl, preview (pyramid)",
    "sample tp, science (pyramid)",
    "native u850, ratio 200 (latent)",
)


@dataclass(frozen=True)
class Case:
    """One way to code one field: `settings` are those of `isopress.compress`, `scale` is what the colours end at."""

    title: str
    original: np.ndarray
    decoded: np.ndarray
    scale: float
    ratio: float

    @property
    def error(self) -> np.ndarray:
        """Decoded minus original."""
        return self.decoded.astype(np.float64) - self.original


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all figures; return 2 if the data cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGES, help="folder for the pictures")
    out = parser.parse_args(arguments).out
    try:
        blocks = {
            f"{block.dataset}/{block.name}": block for name in ("native", "sample") for block in PUBLIC[name].load()
        }
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    cases = list(error_cases(blocks))
    save(error_maps(cases), out / "errors.png", 20)
    save(side_by_side([case for case in cases if case.title in SHOWN]), out / "fields.png", 256)
    return 0


def error_cases(blocks: dict[str, Block]) -> Iterator[Case]:
    """Yield twenty codings: fields and blocks, under bounds, relative bounds and targets."""
    for name in ("msl", "u850", "vo850"):
        for preset in PRESETS:
            yield under_preset(blocks[f"native/{name}"], preset)
    for name in ("t2m", "u10", "tp"):
        for preset in PRESETS[1:]:
            yield under_preset(blocks[f"sample/{name}"], preset)
    for name in ("msl", "u850"):
        yield with_target(blocks[f"native/{name}"], ratio=200)
    yield with_target(blocks["native/vo850"], rmse=5e-6)
    yield with_target(blocks["sample/t2m"], ratio=200)
    yield loose(blocks["sample/msl"])


def under_preset(block: Block, preset: Preset) -> Case:
    """Code a block under the bound of a preset."""
    bound = preset_bound(preset, block.name, {"units": UNITS.get(block.name, "m s-1")})
    settings = {"mode": bound.mode, "bound": bound.value, "floor": bound.floor}
    scale = bound.value if bound.mode == "abs" else None
    return _coded(f"{block.dataset} {block.name}, {preset}", block, scale, **settings)


def with_target(block: Block, **target: float) -> Case:
    """Code a block at a ratio or an RMSE."""
    ((name, value),) = target.items()
    return _coded(f"{block.dataset} {block.name}, {name} {value:g}", block, None, mode="latent", **target)


def loose(block: Block) -> Case:
    """Code a block under a bound so loose that latents are its base."""
    bound = 0.2 * float(block.values.std())
    return _coded(f"{block.dataset} {block.name}, bound {bound:.0f}", block, bound, mode="abs", bound=bound)


def _coded(title: str, block: Block, scale: float | None, **settings: Any) -> Case:
    x = block.values[:TIMES] if block.values.ndim > 2 else block.values[None]
    payload = isopress.compress(x, **settings)
    middle = len(x) // 2
    part = np.s_[middle, x.shape[1] // 8 :, x.shape[2] // 3 :]
    shown = tuple(np.asarray(values)[part][:ROWS, :COLUMNS] for values in (x, isopress.decompress(payload)))
    error = shown[1].astype(np.float64) - shown[0]
    limit = scale or 3 * float(np.sqrt((error**2).mean()))
    how = METHODS[isopress.inspect(payload).method]
    return Case(f"{title} ({how})", *shown, limit, x.nbytes / len(payload))


def error_maps(cases: Sequence[Case]) -> Any:
    """Return a figure of errors, one pixel or more to a value."""
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(4 * columns, 3.3 * rows), dpi=100, layout="constrained")
    for case, axes in zip(cases, figure.subplots(rows, columns).flat, strict=False):
        axes.imshow(case.error, cmap="RdBu_r", vmin=-case.scale, vmax=case.scale, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{case.title}\n{case.ratio:.0f}x, colours end at {case.scale:.2g}", fontsize=9)
    return figure


def side_by_side(cases: Sequence[Case]) -> Any:
    """Return a figure with original, decoded field and error in a row for each case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4 * len(cases)), dpi=100, layout="constrained")
    for case, row in zip(cases, figure.subplots(len(cases), 3, squeeze=False), strict=True):
        low, high = float(np.nanmin(case.original)), float(np.nanmax(case.original))
        for values, axes in zip((case.original, case.decoded), row, strict=False):
            axes.imshow(values, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        row[2].imshow(case.error, cmap="RdBu_r", vmin=-case.scale, vmax=case.scale, interpolation="nearest")
        for axes, title in zip(row, ("original", f"{case.title}, {case.ratio:.0f}x", "error"), strict=True):
            axes.set(xticks=[], yticks=[])
            axes.set_title(title, fontsize=10)
    return figure


def save(figure: Any, path: Path, colours: int) -> None:
    """Write a figure as PNG with a palette, a third of the bytes."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png")
    with Image.open(file) as image:
        image.convert("RGB").quantize(colours).save(path, optimize=True)
    print(f"wrote {path.name}: {path.stat().st_size // 1024} kB", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
