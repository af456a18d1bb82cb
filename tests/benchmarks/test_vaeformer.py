"""The benchmark of VAEformers at equal RMSE, on tiny weights and fields."""

import numpy as np
import pytest

from benchmarks.cases.equal import EqualCase, Match
from benchmarks.datasets.public import Block
from benchmarks.peers.sized import Point
from benchmarks.report.equal import vaeformer as table
from benchmarks.vaeformer import LATENTS, bytes_at, coded, order_of, rows_of
from isopress.codec.vaeformer.weights import load_vaeformer
from tests.fields import blocky
from tests.make_golden import ALONE, SMALL


def case_of(block: Block, rmse: float, n_bytes: int) -> EqualCase:
    """Return a case in which JPEG2000 and the latents have these figures, SPERR twice the error."""
    errors = {"JPEG2000": rmse, "SPERR": 2 * rmse}
    peers = {name: Point(n_bytes, error, "rate", "fields", 1.0, "measured") for name, error in errors.items()}
    deviation = float(block.values.std(dtype=np.float64))
    return EqualCase(
        "single fields", block.dataset, block.name, block.sha256, block.values.shape, "float32", block.values.nbytes,
        deviation, 100.0, peers, {}, Match(n_bytes / 2, "measured", ()),
    )  # fmt: skip


def test_bytes_lie_between_real_payloads_and_are_compared_at_the_error_of_each() -> None:
    model, block = load_vaeformer(ALONE), Block("mine", "t850", blocky()[0])
    (row,) = rows_of(model, block, [case_of(block, 1.0, 500)])
    sizes = [size for size, _ in row["payloads"]]
    errors = [error for _, error in row["payloads"]]
    assert sizes == sorted(sizes, reverse=True)
    assert errors[0] <= 1 < 2 <= errors[-1]
    assert row["others"]["SPERR"]["model_bytes"] < row["others"]["JPEG2000"]["model_bytes"]
    assert row["others"][LATENTS]["model_bytes"] == row["others"]["JPEG2000"]["model_bytes"]
    text = table({"rows": [row]})
    assert "geometric mean, fields" in text
    assert "(larger)" in text


def test_channels_are_put_into_the_order_of_the_weights() -> None:
    x = blocky()
    block = Block("mine", "u10, t850, t500", x[[2, 0, 1]])
    model = load_vaeformer(SMALL)
    assert order_of(model, block) == [1, 2, 0]
    assert order_of(model, Block("mine", "u10, t850", x[:2])) == []
    size, rmse = coded(model, x, -40)
    assert size < x.nbytes / 2
    assert rmse < 1


def test_interpolation_is_exact_on_a_power_law() -> None:
    points = [(1000, 1.0), (250, 4.0)]
    assert bytes_at(points, 2.0) == pytest.approx(500)
    assert np.isclose(bytes_at(points, 1.0), 1000)
