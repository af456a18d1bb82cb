"""isopress as a codec of Zarr 2 and 3, and opening stores."""
