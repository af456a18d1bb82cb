"""The ratio at which isopress has the RMSE reported for CRA5: `python -m benchmarks.cra5`.

CRA5 (arXiv 2405.03376) codes 268 variables and levels of ERA5 together at 0.062 bits per value, a ratio of 516. Its
RMSE per variable is a mean over a year that is not public in this form, so the fields here are others: one time at 0.25
degree for msl, u850 and v850, and the 1 degree sample, which is harder (every fourth point, so neighbours
differ more), for the rest. Writes cra5.json and prints the table.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases.metrics import bits_per_value
from benchmarks.comparison import add_output_options, publish
from benchmarks.datasets.public import PUBLIC, Block
from benchmarks.datasets.releases import DatasetError
from benchmarks.environment import environment
from benchmarks.equal_rmse import Coder, isopress_latent, match
from benchmarks.report.tables import overview

RATIO = 32 / 0.062


@dataclass(frozen=True)
class Reported:
    """The RMSE of CRA5 for one variable, and the public data nearest to it."""

    variable: str
    rmse: float
    unit: str
    dataset: str


# Reported, too: z500 6.1 m2/s2, t850 0.294 K, q850 3.4e-4 kg/kg, w850 0.093 Pa/s, sp 480 Pa; no public field here.
REPORTED = (
    Reported("msl", 12.7, "Pa", "native"),
    Reported("u850", 0.508, "m/s", "native"),
    Reported("v850", 0.493, "m/s", "native"),
    Reported("msl", 12.7, "Pa", "sample"),
    Reported("t2m", 0.72, "K", "sample"),
    Reported("u10", 0.379, "m/s", "sample"),
)
DATA = {"native": "0.25 degree, one time", "sample": "1 degree, 24 times"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cra5", description=__doc__)
    add_output_options(parser)
    options = parser.parse_args(arguments)
    try:
        blocks = {(name, block.name): block for name in DATA for block in PUBLIC[name].load()}
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [row_of(each, blocks[each.dataset, each.variable], isopress_latent) for each in REPORTED]
    result = {**environment(("isopress", "numpy", "torch")), "rows": rows}
    publish(result, options.out / "cra5.json", overview(result, "cra5.json"), options.json)
    return 0


def row_of(reported: Reported, block: Block, code: Coder) -> dict[str, Any]:
    """Return the ratio at which `code` has the reported RMSE on a block, as a record for the JSON."""
    found = match(code, block.values, reported.rmse)
    return {
        "variable": reported.variable,
        "data": DATA[reported.dataset],
        "unit": reported.unit,
        "reported": reported.rmse,
        "reported_ratio": RATIO,
        "ratio": block.values.nbytes / found.n_bytes,
        "bits_per_value": bits_per_value(1, block.values.size) * found.n_bytes,
        "how": found.how,
        "payloads": found.payloads,
    }


if __name__ == "__main__":
    sys.exit(main())
