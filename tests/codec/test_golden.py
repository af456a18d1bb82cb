"""Every payload ever released decodes to the values it decoded to when it was written."""

from pathlib import Path

import numpy as np
import pytest

import isopress
from isopress.codec.encoded import Method
from tests.contract import assert_kept
from tests.golden_payloads import Golden, all_golden, read, write
from tests.make_golden import digest, features, main, may_drift

PAYLOADS = all_golden()
NEWEST = "v{}.{}".format(*isopress.inspect(isopress.compress(0.0, mode="lossless")).version)


def test_every_feature_and_method_of_this_version_has_a_golden_payload() -> None:
    newest = [one for one in PAYLOADS if one.version == NEWEST]
    assert {one.name for one in newest} == set(features())
    assert {one.method for one in newest} == set(Method)


@pytest.mark.parametrize("one", PAYLOADS, ids=str)
def test_a_golden_payload_decodes_to_the_recorded_values(one: Golden) -> None:
    y = isopress.decompress(one.payload)
    assert (y.dtype.str, list(y.shape)) == (one.decoded["dtype"], one.decoded["shape"])
    if may_drift(one.payload):
        assert one.values is not None
        finite = np.isfinite(one.values)
        assert y[~finite].tobytes() == one.values[~finite].tobytes()
        np.testing.assert_allclose(y[finite], one.values[finite], rtol=1e-5, atol=1e-4 * one.values[finite].std())
    else:
        assert digest(y) == one.decoded["sha256"]
    assert y.flags.f_contiguous if one.decoded["order"] == "F" else y.flags.c_contiguous
    settings = {name: value for name, value in one.settings.items() if name not in ("effort", "model", "channels")}
    assert_kept(one.x, y, **settings)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    some = [one for one in PAYLOADS if one.name in ("big-endian", "fortran-order", "latent-rmse", "empty")]
    write(tmp_path / "v1.2", some)
    for one, back in zip(some, read(tmp_path / "v1.2"), strict=True):
        assert str(back) == f"v1.2/{one.name}"
        assert (back.payload, back.settings, back.method, back.decoded) == (
            one.payload,
            one.settings,
            one.method,
            one.decoded,
        )
        assert (back.x.tobytes("A"), back.x.dtype, back.x.strides) == (one.x.tobytes("A"), one.x.dtype, one.x.strides)
        assert (back.values is None) == (one.values is None)


def test_golden_payloads_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / NEWEST).mkdir()
    assert main(tmp_path) == 1
    assert "kept for ever" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / NEWEST]
