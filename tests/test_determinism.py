"""The report of what is the same where says what it must; `.ci/run` makes it, in a short form."""

from pathlib import Path

import numpy as np

from isopress.codec.encoded import Method
from tests import determinism
from tests.determinism import REFERENCE, Column, table


def column(name: str, payload: str = "ab", decoded: str = "cd", drift: float = 0.0, field: str = "ef") -> Column:
    """Return a column of an array that is exact, one that may drift, and a latent of one field."""
    payloads = {"abs": payload, "based": payload, "latent-halved-ahead": f"{payload}{drift}"}
    values = np.float32([1, 2, 3, np.nan]) + np.float32(drift)
    decoded_to = {"abs": decoded, "based": f"{drift}", "latent-halved-ahead": field}
    return Column(name, {"python": "3"}, payloads, decoded_to, {"based": values})


def test_equal_columns_pass_and_floats_may_drift_by_what_is_said() -> None:
    text, kept = table([column(REFERENCE), column("other", drift=0.5)], [])
    assert kept
    assert "| abs | block | `ab` `cd` | = |" in text
    assert "| based | based | `ab` `0.0` | 6.1e-01 |" in text
    assert "| latent-halved-ahead | latent | `ab0.0` `ef` | other payload |" in text


def test_other_bytes_values_and_processes_that_fail_are_no_pass() -> None:
    for other in (column("other", payload="xx"), column("other", decoded="xx"), column("other", field="xx")):
        text, kept = table([column(REFERENCE), other], [])
        assert not kept
        assert "NOT EQUAL" in text
    assert not table([column(REFERENCE)], ["other: it died"])[1]


def test_columns_come_back_from_files(tmp_path: Path) -> None:
    column("2 threads").write(tmp_path)
    back = Column.read(tmp_path / "2 threads.json")
    assert back.decoded == column("2 threads").decoded
    np.testing.assert_array_equal(back.values["based"], column("2 threads").values["based"])


def test_the_short_form_has_every_method() -> None:
    assert {determinism.Kind.of(one).method for one in determinism.golden(short=True)} == set(Method)
