"""A few cases of the soak, so that it stays whole; `python -m tests.soak` runs as long as you like."""

import pytest

from tests import soak


@pytest.fixture(scope="module")
def payloads() -> list[bytes]:
    return soak.pool(7, 20)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_arrays_of_all_kinds_keep_their_bounds_on_every_level() -> None:
    ends = {soak.check_array(seed) for seed in range(1, 31)}
    assert len(ends) > 8


def test_damaged_payloads_end_in_an_error_or_in_an_array(payloads: list[bytes]) -> None:
    ends = {soak.check_payload(seed, payloads) for seed in range(300)}
    assert ends >= {"decoded", "CorruptPayloadError", "TruncatedPayloadError"}


def test_a_violation_is_reported_with_the_case_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak.isopress, "decompress", lambda payload: 0)
    monkeypatch.setattr(soak, "limit_memory", lambda: None)  # of this very process
    monkeypatch.setattr(soak, "pool", lambda seed: [])
    monkeypatch.setattr(soak, "cases", lambda number, payloads: [("array", lambda: soak.check_array(1))])
    counts, wrong = soak.work(3, 0.01, "/dev/null")
    assert not counts
    assert all("--case array:300000000" in fault for fault in wrong)
    assert wrong
