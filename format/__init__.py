"""Sections <-> payload bytes <-> stores. Import-light: host libraries load their adapter only."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Isopress": "isopress.format.zarr.v2_codec",
    "IsopressCodec": "isopress.format.zarr.v3_codec",
    "compress": "isopress.format.api",
    "decompress": "isopress.format.api",
    "inspect": "isopress.format.api",
    "set_cache_size": "isopress.format.decode_cache",
    "set_threads": "isopress.codec.threads",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'isopress.format' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
