"""Arrays <-> symbols <-> coded sections. Knows no files, no Zarr, no xarray and no click."""
