"""`ds.isopress` on datasets of xarray, registered by `import isopress.xarray`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr
import zarr.abc.store

from isopress.codec.errors import ArgumentError
from isopress.format.error_spec import as_specs
from isopress.format.presets import DEFAULT_PRESET, Preset
from isopress.format.report.compare.compare import FIELDS, compare
from isopress.format.report.compare.records import CompareReport
from isopress.format.report.estimate import SECONDS, estimate_source
from isopress.format.report.estimate_records import Estimate
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport
from isopress.format.source.dataset import in_memory
from isopress.format.store.encoding import to_zarr
from isopress.format.store.plan import Wishes


@xr.register_dataset_accessor("isopress")
class IsopressAccessor:
    """What isopress knows of a dataset, and of the store it was opened from."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def info(self) -> StoreReport:
        """Return bounds, achieved errors, sizes and models of the store that the dataset was opened from.

        Raises
        ------
        ArgumentError
            The dataset was not opened from a path or URL, or there is no Zarr store any more.
        """
        return read_report(self._path("info"))

    def estimate(
        self,
        error: Mapping[str, str | float] | str | float | None = None,
        *,
        preset: Preset = DEFAULT_PRESET,
        chunks: Mapping[str, int] | None = None,
        jobs: int = 1,
        seconds: float = SECONDS,
    ) -> Estimate:
        """Return what compressing the dataset will give and take, from samples; lazy arrays stay lazy.

        Parameters
        ----------
        error : mapping of name or pattern to limit, or a limit, optional
            Limits as `--error` takes them, in the unit of the variable: `{"t2m": 0.1, "tp": "pointwise:1%"}`. The last
            that names a variable wins; what none names gets a bound from `preset`.
        preset, chunks, jobs
            As `isopress compress` takes them.
        seconds : float
            Time for sampling.

        Raises
        ------
        ArgumentError
            A limit is not one or names nothing, or a chunk no dimension.
        """
        wishes = Wishes(as_specs(error), preset, chunks or {})
        return estimate_source(in_memory(self._dataset), "dataset", wishes, jobs=jobs, seconds=seconds)

    def to_zarr(
        self,
        store: str | Path | zarr.abc.store.Store,
        error: Mapping[str, str | float] | str | float | None = None,
        *,
        preset: Preset = DEFAULT_PRESET,
        chunks: Mapping[str, int] | None = None,
        shards: Mapping[str, int] | None = None,
        zarr_format: Literal[2, 3] = 3,
        mode: Literal["w", "w-"] = "w-",
    ) -> None:
        """Write the dataset with `isopress.encoding`, and record limits in its attributes.

        The scheduler of dask that is in use does the work. Lazy arrays are cut anew where their chunks are not whole
        shards. `info()` of what is opened from there reads achieved errors from the headers of chunks.

        Parameters
        ----------
        store : str, Path or zarr Store
            Where to: a path, a URL, or a store of zarr, obstore or icechunk.
        error, preset, chunks, shards, zarr_format
            As of `isopress.encoding`.
        mode : {"w-", "w"}
            Refuse or replace what is there.

        Raises
        ------
        ArgumentError
            As `isopress.encoding` does.
        """
        to_zarr(
            self._dataset,
            store,
            error,
            preset=preset,
            chunks=chunks,
            shards=shards,
            zarr_format=zarr_format,
            mode=mode,
        )

    def report(self, source: str | Sequence[str], *, fields: int = FIELDS) -> CompareReport:
        """Return figures of merit of the store that the dataset was opened from, against what it was made of.

        In a notebook it shows itself as a table; `report(...).to_html()` is a page with maps and spectra.

        Parameters
        ----------
        source : str or sequence of str
            What the store was made of.
        fields : int
            Fields of each variable that are compared, evenly spread.

        Raises
        ------
        ArgumentError
            The dataset was not opened from a path or URL, the source cannot be read, or they do not go together.
        """
        return compare(source, self._path("report"), fields=fields)

    def _path(self, what: str) -> str:
        source: Any = self._dataset.encoding.get("source")
        if not source:
            raise ArgumentError(f"{what} is about a store; this dataset was not opened from a path or URL")
        return str(source)
