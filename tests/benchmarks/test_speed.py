"""Speed is measured in fresh processes, and every target has a verdict; on tiny input."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.cases.speed import TARGETS, speed_verdicts
from benchmarks.environment import environment
from benchmarks.report import tables
from benchmarks.report.speed import linearity
from benchmarks.timing import Job, in_fresh_process, measure, seconds_of
from tests.fields import waves

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
PCODEC = "rounding + pcodec"


def a_run(codec: str, encode: float, decode: float, memory: float = 3.0) -> dict[str, Any]:
    """A record of a field at 1e-3."""
    parts = {"encode": encode, "decode": decode}
    figures = {part: {"mb_per_s": value, "peak_over_array": memory} for part, value in parts.items()}
    return {"case": "field, 0.001 of the range", "codec": codec, "ratio": 20.0, **figures}


def a_row(what: str, n_values: int, encode: float) -> dict[str, Any]:
    return {"what": what, "n_values": n_values, "encode": encode, "decode": 1e-6 * n_values}


def test_a_codec_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    np.save(tmp_path / "field.npy", waves(64, 64))
    found = in_fresh_process(Job(str(tmp_path), PCODEC, "encode", 0.01, repeat=1))
    assert found.mb_per_s > 0
    assert found.peak_over_array > 0
    with pytest.raises(RuntimeError, match="StopIteration"):
        in_fresh_process(Job(str(tmp_path), "nothing", "encode", 0.01, repeat=1))


@pytest.mark.parametrize(("codec", "tolerance"), [("isopress", 0.01), ("isopress, latent", 0.05)])
def test_what_was_encoded_is_decoded(tmp_path: Path, codec: str, tolerance: float) -> None:
    np.save(tmp_path / "field.npy", waves(40, 48))
    job = Job(str(tmp_path), codec, "encode", tolerance, repeat=1)
    assert measure(job).seconds > 0
    assert measure(Job(**{**asdict(job), "part": "decode"})).seconds > 0
    assert (tmp_path / "payload").stat().st_size < waves(40, 48).nbytes / 2


def test_seconds_are_those_of_the_code_alone() -> None:
    assert 0.01 <= seconds_of("time.sleep(0.01)", repeat=1) < 0.5


def test_on_one_core_isopress_has_one_thread() -> None:
    assert seconds_of("from isopress.codec.threads import threads\nassert threads() == 1", repeat=1) > 0


def test_chunks_and_sizes_are_measured() -> None:
    rows = [*speed.by_chunks(waves(128, 256), [1, 2])]
    assert [row["n_values"] for row in rows] == [128 * 256, 2 * 128 * 256]
    assert all(row["encode"] > 0 and row["decode"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (a_run("isopress", 100, 200), []),
        (a_run("isopress", 59, 200), ["encode, MB/s"]),
        (a_run("isopress", 100, 120), ["decode, times the speed of SPERR"]),
        (a_run("isopress", 100, 200, memory=4), ["decode, memory / array"]),
    ],
)
def test_every_target_of_speed_has_a_verdict(ours: dict[str, Any], missed: list[str]) -> None:
    found = speed_verdicts({"field": [ours, a_run("SPERR", 20, 50)]})
    assert ours["case"] in TARGETS
    assert len(found) == 6
    assert [verdict.target for verdict in found if not verdict.kept] == missed


def test_every_level_has_its_share_of_the_targets() -> None:
    runs = [{"level": name, **a_run("isopress", 20, 30)} for name in ("avx2", "generic")]
    found = speed_verdicts({"levels": runs})
    assert [(verdict.dataset, verdict.limit, verdict.kept) for verdict in found] == [
        ("field, 0.001 of the range, avx2", 30, False),
        ("field, 0.001 of the range, avx2", 50, False),
        ("field, 0.001 of the range, generic", 15, True),
        ("field, 0.001 of the range, generic", 25, True),
    ]
    result = {"level": "avx512", "field": [a_run("isopress", 60, 90)], "levels": runs, **environment(["numpy"])}
    shown = tables.overview(result, "speed.json")
    assert "| MB/s, encode and decode | avx512 | avx2 | generic |" in shown
    assert "| field, 0.001 of the range | 60.0, 90.0 | 20.0, 30.0 | 20.0, 30.0 |" in shown


def test_waiting_and_costs_have_verdicts_too() -> None:
    rows = [a_row("1 chunks of 9 values", 9, 9e-6), a_row("10 chunks of 9 values", 90, 120e-6)]
    rows += [a_row("field of 0.25 million values", 250, 1.0), a_row("field of 1 million values", 1000, 4.2)]
    result = {"linear": rows, "start": [{"what": "import isopress", "seconds": 0.2}]}
    found = {verdict.target: verdict.kept for verdict in speed_verdicts(result)}
    assert found == {
        "import isopress, s": False,
        "encode, cost of a value, more million values": True,
        "decode, cost of a value, more million values": True,
        "encode, cost of a value, more chunks": False,
        "decode, cost of a value, more chunks": True,
    }
    assert "| 10 chunks of 9 values | 1.333 (1.33) | 1.000 (1.00) |" in linearity(result)


def test_tables_of_speed_show_what_was_measured() -> None:
    result = {"field": [a_run("isopress", 6, 9), a_run("SPERR", 24, 36)], **environment(["numpy"])}
    shown = tables.overview(result, "speed.json")
    assert "Measured at commit" in shown
    assert "| SPERR | 20.0 | 24.0 | 36.0 | 3.0x | 3.0x | 0.25 | 0.25 |" in shown
    assert "| encode, MB/s | 6.0000 | >= 60 | **missed** |" in shown
