"""The long checks, shortly: the soak, and the report of what is the same where."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from isopress.codec.encoded import Method
from isopress.codec.native import dispatch
from tests import determinism, soak, soak_payloads
from tests.determinism import REFERENCE, Column, table
from tests.sanitized import VARIABLE
from tests.soak_arrays import check_array
from tests.soak_payloads import Pool, check_payload, pool

# --- A few cases of the soak, so that it stays whole; `python -m tests.soak` runs as long as you like -----------------


@pytest.fixture(scope="module")
def payloads() -> Pool:
    return pool(7, 40)


# With the sanitizers, as `.ci/run` runs these, every case counts twice: there are more of them.
MORE = 3 if VARIABLE in os.environ else 1


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_arrays_of_all_kinds_keep_their_bounds_on_every_level() -> None:
    ends = {check_array(seed) for seed in range(1, 14 * MORE)}
    assert len(ends) > 4


def test_the_pool_has_payloads_of_every_method(payloads: Pool) -> None:
    assert all(payloads.values())


def test_damaged_payloads_end_in_an_error_or_in_an_array(payloads: Pool) -> None:
    ends = {check_payload(seed, payloads) for seed in range(133 * MORE)}
    assert ends >= {"decoded", "decoded in part", "CorruptPayloadError", "TruncatedPayloadError"}


def test_levels_decode_for_themselves_and_remember_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that one level decoded must not answer for the next one."""
    decoded = Counter[str]()
    honest = soak_payloads.block.BlockDecoder.decode

    def counted(decoder: soak_payloads.block.BlockDecoder, fields: list[int]) -> object:
        decoded[dispatch.level()] += 1
        return honest(decoder, fields)

    monkeypatch.setattr(soak_payloads.block.BlockDecoder, "decode", counted)
    seed = next(seed for seed in range(1, 2000) if seed % 25 and check_array(seed).endswith(" block"))
    decoded.clear()
    check_array(seed)
    assert set(dispatch.levels()[:2]) <= set(decoded)


def test_a_violation_is_reported_with_the_case_that_repeats_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("isopress.decompress", lambda payload: 0)
    monkeypatch.setattr(soak, "limit_memory", lambda: None)  # of this very process
    monkeypatch.setattr(soak, "pool", lambda seed: {})
    monkeypatch.setattr(soak, "cases", lambda number, payloads: [("array", lambda: check_array(1))])
    soak.work(3, 0.01, str(tmp_path))
    account = soak.read(tmp_path / "3.json")
    assert not account.counts
    assert account.wrong
    assert all("--case array:300000000" in fault for fault in account.wrong)
    assert soak.report([account]) == 1


def test_a_process_that_dies_is_a_violation_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "5.case").write_text("payload:12:5")
    monkeypatch.setattr(soak, "work", os.abort)  # with arguments that it does not take
    monkeypatch.setattr(soak, "MOST_CRASHES", 1)
    assert soak.soak(1, 1, 5, tmp_path) == [5, 6]
    assert "payload:12:5" in soak.read(tmp_path / "5.json").wrong[0]
    assert "the start" in soak.read(tmp_path / "6.json").wrong[0]


def test_the_guarantees_say_what_the_last_soak_did() -> None:
    text = (Path(__file__).parents[1] / "format" / "GUARANTEES.md").read_text()
    builds = json.loads((soak.RESULTS / "soak.json").read_text())["builds"]
    for build in builds.values():
        assert build["violations"] == 0
        assert all(f"{build[kind]:,}" in text for kind in ("arrays", "payloads"))


def test_the_guarantees_say_how_runs_ended() -> None:
    text = (Path(__file__).parents[1] / "format" / "GUARANTEES.md").read_text()
    record = json.loads((soak.RESULTS / "endings.json").read_text())
    assert not record["violations"]
    assert sum(number for name, number in record["endings"].items() if name.startswith("kills")) >= 50
    section = text.partition("`python -m tests.endings`, ")[2].partition("\n\n")[0]
    assert re.findall(r"\b\d+\b", section) == [str(number) for number in record["endings"].values()]


# --- the report of what is the same where says what it must; `.ci/run` makes it, in a short form ----------------------


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
