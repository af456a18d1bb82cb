"""The ratio at which isopress has the RMSE reported for CRA5: `python -m benchmarks.cra5`.

CRA5 (arXiv 2405.03376) codes 268 variables and levels of ERA5 together at 0.062 bits per value, a ratio of 516. Its
RMSE per variable is a mean over a year of global fields at 0.25 degree that are not public in this form, so the data
here are others: single fields, hours, levels, and levels of several hours. Public data say it for fields and hours;
`--data DIR`, a folder of `val/` and `train/` with ERA5's files, adds the other rows, each with what it is. Writes
cra5.json and prints the table.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.cases.metrics import bits_per_value
from benchmarks.comparison import add_output_options, publish
from benchmarks.datasets.public import PUBLIC, Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.equal_rmse import Coder, isopress_latent, match
from benchmarks.report.tables import overview

RATIO = 32 / 0.062
# Reported, too: z500 6.1 m2/s2, q850 3.4e-4 kg/kg, w850 0.093 Pa/s, sp 480 Pa; no field of these here.
RMSE = {"msl": (12.7, "Pa"), "u": (0.508, "m/s"), "v": (0.493, "m/s"), "t2m": (0.72, "K"), "u10": (0.379, "m/s"),
        "t": (0.294, "K")}  # fmt: skip
PUBLIC_DATA, VALIDATION, TRAINING = "public, never seen", "chose the weights", "weights learned from it"


@dataclass(frozen=True)
class Reported:
    """A block of one variable, and how it compares with what CRA5 reports of that.

    kind : fields, hours, levels, or levels and hours; quantity : the key of RMSE; data, seen : in words;
    block : dataset and name of public data, or file and variable below `--data`; hours : number taken, 0 for all.
    """

    kind: str
    quantity: str
    data: str
    seen: str
    block: tuple[str, str]
    hours: int = 0


FIELDS, HOURS, LEVELS, BOTH = "field", "hours", "levels", "levels x hours"
_ONE = "global, 0.25 degree, one time"
_SAMPLE = "global, 24 times 7 h apart, 1 degree by every fourth point: rougher, so the same RMSE takes more"
_ICELAND = "81 x 89, 0.25 degree, {} times an hour apart"
_EDA = "Europe 42 x 73, 1 degree, 3 levels (50, 500, 1000 hPa) x 8 forecasts and members"
REPORTED = (
    Reported(FIELDS, "msl", _ONE, PUBLIC_DATA, ("native", "msl")),
    Reported(FIELDS, "u", f"850 hPa, {_ONE}", PUBLIC_DATA, ("native", "u850")),
    Reported(FIELDS, "v", f"850 hPa, {_ONE}", PUBLIC_DATA, ("native", "v850")),
    Reported(FIELDS, "t2m", _ONE, VALIDATION, ("val/era5_g025_t2m_20121201", "t2m")),
    Reported(FIELDS, "t", f"about 600 hPa (CRA5: 850), {_ONE}", VALIDATION, ("val/era5_g025_ebcc_test", "t")),
    Reported(HOURS, "t2m", _SAMPLE, PUBLIC_DATA, ("sample", "t2m")),
    Reported(HOURS, "u10", _SAMPLE, PUBLIC_DATA, ("sample", "u10")),
    Reported(HOURS, "msl", _SAMPLE, PUBLIC_DATA, ("sample", "msl")),
    Reported(HOURS, "msl", _ICELAND.format(24), TRAINING, ("train/era5_r025_uv_msl_iceland_72h", "msl"), 24),
    Reported(HOURS, "u10", _ICELAND.format(24), TRAINING, ("train/era5_r025_uv_msl_iceland_72h", "10u"), 24),
    Reported(HOURS, "msl", _ICELAND.format(36), TRAINING, ("train/era5_r025_uv_msl_iceland_72h", "msl")),
    Reported(HOURS, "u10", _ICELAND.format(36), TRAINING, ("train/era5_r025_uv_msl_iceland_72h", "10u")),
    Reported(HOURS, "t2m", "33 x 49, 0.25 degree, 96 times an hour apart", TRAINING,
             ("train/era5_r025_t2m_uk_744h", "2t"), 96),
    Reported(LEVELS, "t", "11 levels 1000 to 100 hPa (CRA5: 850), 141 x 161, 0.25 degree", VALIDATION,
             ("val/era5_r025_t11_typhoon", "t")),
    Reported(LEVELS, "u", "4 levels 925 to 200 hPa (CRA5: 850), 201 x 321, 0.25 degree", TRAINING,
             ("train/era5_r025_uvw_eastasia", "u")),
    Reported(LEVELS, "v", "4 levels 925 to 200 hPa (CRA5: 850), 201 x 321, 0.25 degree", TRAINING,
             ("train/era5_r025_uvw_eastasia", "v")),
    Reported(LEVELS, "t", "37 levels 1000 to 1 hPa (CRA5: 850), 41 x 81, 0.25 degree", TRAINING,
             ("train/era5_r025_ztq_37lev_japan", "t_pl")),
    Reported(BOTH, "t", _EDA, TRAINING, ("train/era5_r100_tuv_3lev_eda_fc", "t_pl")),
    Reported(BOTH, "u", _EDA, TRAINING, ("train/era5_r100_tuv_3lev_eda_fc", "u_pl")),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cra5", description=__doc__)
    add_output_options(parser)
    parser.add_argument("--data", type=Path, help="a folder of ERA5's files in val/ and train/")
    options = parser.parse_args(arguments)
    rows = []
    try:
        for reported, load in sources(options.data):
            rows.append(row_of(reported, load(), isopress_latent))
            print(f"{reported.kind} {reported.quantity} {rows[-1]['ratio']:.0f}x", file=sys.stderr, flush=True)
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = {**environment(("isopress", "numpy", "torch")), "rows": rows}
    publish(result, options.out / "cra5.json", overview(result, "cra5.json"), options.json)
    return 0


def sources(folder: Path | None) -> Iterator[tuple[Reported, Callable[[], Block]]]:
    """Yield what is compared and how it is loaded: public data, and files below `folder` if there is one."""
    public: Mapping[tuple[str, str], Block] = {
        (name, block.name): block for name in ("native", "sample") for block in PUBLIC[name].load()
    }
    for each in REPORTED:
        if each.block in public:
            yield each, lambda found=public[each.block]: found  # type: ignore[misc]
        elif folder is not None:
            yield each, lambda each=each: from_file(folder, each)  # type: ignore[misc]


def from_file(folder: Path, reported: Reported) -> Block:
    """Return the block of a file below `folder`."""
    stem, name = reported.block
    with xr.open_dataset(folder / f"{stem}.nc", decode_times=False) as dataset:
        values = np.asarray(dataset[name].values)
    return Block(stem, name, values[: reported.hours] if reported.hours else values)


def row_of(reported: Reported, block: Block, code: Coder) -> dict[str, Any]:
    """Return the ratio at which `code` has the reported RMSE on a block, as a record for the JSON."""
    rmse, unit = RMSE[reported.quantity]
    found = match(code, block.values, rmse)
    return {
        "kind": reported.kind,
        "variable": reported.quantity,
        "data": reported.data,
        "seen": reported.seen,
        "data_sha256": block.sha256,
        "shape": block.values.shape,
        "unit": unit,
        "reported": rmse,
        "reported_ratio": RATIO,
        "ratio": block.values.nbytes / found.n_bytes,
        "bits_per_value": bits_per_value(1, block.values.size) * found.n_bytes,
        "how": found.how,
        "payloads": found.payloads,
    }


if __name__ == "__main__":
    sys.exit(main())
