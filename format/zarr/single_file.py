"""Stores in a single file, `.isop.zip`: a Zarr store in a zip whose members are not compressed, and xarray's engine.

xarray imports this file whenever it opens anything without being told how, so it loads nothing else.
"""

import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

SUFFIX = ".isop.zip"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of all members: equal stores are equal files
_OF_READING = ("serializer", "compressors", "filters", "shards")  # or `to_zarr` would compress a second time


class IsopressEngine(BackendEntrypoint):
    """`xr.open_dataset("store.isop.zip")`; claims files with this suffix alone."""

    description = "Open isopress stores in a single file (.isop.zip)"
    url = "https://pypi.org/project/isopress"

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the name has our suffix."""
        return isinstance(filename_or_obj, (str, os.PathLike)) and os.fspath(filename_or_obj).endswith(SUFFIX)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
        group: str | None = None,
    ) -> xr.Dataset:
        """Open a group of the store, as xarray opens Zarr; nothing of how it is coded sticks to the dataset."""
        # xarray takes no **options here
        from zarr.storage import ZipStore

        path = os.path.abspath(filename_or_obj)
        store: Any = ZipStore(path, mode="r")
        dataset = xr.open_dataset(
            store,
            engine="zarr",
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            concat_characters=concat_characters,
            decode_coords=decode_coords,
            drop_variables=drop_variables,
            use_cftime=use_cftime,
            decode_timedelta=decode_timedelta,
            group=group,
            consolidated=None if group is None else False,
        )
        for variable in dataset.variables.values():
            variable.encoding = {key: value for key, value in variable.encoding.items() if key not in _OF_READING}
        dataset.encoding["source"] = path
        dataset.set_close(store.close)
        return dataset


def pack(folder: Path) -> None:
    """Put a single file in the place of a store in a folder."""
    packed = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with archive.open(_member(path, folder), "w", force_zip64=True) as member, open(path, "rb") as file:
                shutil.copyfileobj(file, member)
    shutil.rmtree(folder)
    packed.rename(folder)


def _member(path: Path, folder: Path) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EPOCH)
    info.external_attr = 0o644 << 16
    return info
