"""`ds.isopress` on datasets of xarray, registered by `import isopress.xarray`."""

from typing import Any

import xarray as xr

from isopress.codec.errors import ArgumentError
from isopress.format.report.info import read_report
from isopress.format.report.records import StoreReport


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

    def _path(self, what: str) -> str:
        source: Any = self._dataset.encoding.get("source")
        if not source:
            raise ArgumentError(f"{what} is about a store; this dataset was not opened from a path or URL")
        return str(source)
