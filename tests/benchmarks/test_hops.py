"""The count of functions on an array's way sees those of isopress, by file and depth, and nothing else."""

import sys

from benchmarks.hops import Counter, field
from benchmarks.report.tables import hops
from isopress.format import api


def test_functions_are_counted_once_and_by_file() -> None:
    counter = Counter()
    sys.setprofile(counter)
    try:
        found = counter.count(lambda: [api.compress(field(12, 16), bound=0.05) for _ in range(2)])
        none = counter.count(lambda: sorted([2, 1]))
    finally:
        sys.setprofile(None)
    assert found["functions"] >= found["files"] > 1
    assert found["depth"] > 1
    assert none == {"functions": 0, "files": 0, "depth": 0}


def test_the_table_has_a_column_per_version() -> None:
    figures = {"functions": 9, "files": 3, "depth": 2}
    table = hops({"0.7.0": {"compress a field": figures}, "0.8.0": {"compress a field": figures | {"functions": 4}}})
    assert table.splitlines()[0] == "| functions / files / depth | 0.7.0 | 0.8.0 |"
    assert table.splitlines()[-1] == "| compress a field | 9 / 3 / 2 | 4 / 3 / 2 |"
