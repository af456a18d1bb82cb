"""isopress: small weather archives with an error bound you chose and can check.

The names below are the public interface; each is loaded at first use, so that opening a store
costs neither torch nor weights.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("isopress")

_PUBLIC = {
    "IsopressCodec": "isopress.format.zarr.v3_codec",
    "compress": "isopress.format.api",
    "decompress": "isopress.format.api",
    "encoding": "isopress.format.store.encoding",
    "inspect": "isopress.format.api",
    "IsopressError": "isopress.codec.errors",
    "ArgumentError": "isopress.codec.errors",
    "BoundError": "isopress.codec.errors",
    "ModelNotFoundError": "isopress.codec.errors",
    "PayloadError": "isopress.codec.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'isopress' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PUBLIC[name]), name)  # whose next use asks nobody
    return found


def __dir__() -> list[str]:
    return __all__
