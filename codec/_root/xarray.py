"""`import isopress.xarray` gives every dataset `ds.isopress`. Apart from `import isopress`, which loads no xarray."""

from importlib import import_module

import_module("isopress.format.accessor")
