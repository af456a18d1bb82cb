"""Targets: settings, options, reports and the checks of mode latent that need no weights."""

import json
from pathlib import Path
from typing import Any

import click
import numcodecs
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result

import isopress
from isopress.cli import tables as report
from isopress.cli.main import main
from isopress.cli.params import ERROR, RATIO, RMSE, OrderedCommand, in_order
from isopress.codec.errors import ArgumentError
from isopress.codec.limits import Bound, Target
from isopress.format import Isopress, IsopressCodec
from isopress.format.error_spec import ErrorSpec, check_specs, format_bound, last_match, parse_error, parse_target
from isopress.format.report.records import StoreReport, VariableReport
from isopress.format.store.distortion import measure
from tests.datasets import save_netcdf, weather

RATIO_300 = {"mode": "latent", "ratio": 300.0}
RMSE_HALF = {"mode": "latent", "rmse": 0.5, "effort": 2}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "latent"}, "takes a ratio or an rmse, one of the two; got neither"),
    ({"mode": "latent", "ratio": 300, "rmse": 0.5}, "got ratio=300 and rmse=0.5"),
    ({"mode": "latent", "ratio": 1}, "ratio must be a finite number > 1.*got 1$"),
    ({"mode": "latent", "ratio": -3.0}, "got -3.0"),
    ({"mode": "latent", "ratio": float("inf")}, "ratio must be a finite"),
    ({"mode": "latent", "ratio": "300"}, "got '300'"),
    ({"mode": "latent", "ratio": True}, "got True"),
    ({"mode": "latent", "rmse": 0}, "rmse must be a finite number > 0, in the unit of the data, got 0"),
    ({"mode": "latent", "rmse": float("nan")}, "got nan"),
    ({"mode": "latent", "rmse": [0.1, 0.2]}, "rmse must be"),
    ({"mode": "latent", "ratio": 300, "bound": 0.1}, "bound=0.1 belongs to the bounded modes.*leave out bound"),
    ({"mode": "latent", "ratio": 300, "bound": np.array([1, 2])}, "belongs to the bounded modes"),
    ({"mode": "latent", "ratio": 300, "floor": 0.1}, "floor=0.1 belongs"),
    ({"mode": "latent", "ratio": 300, "context": "block"}, "context='block' belongs"),
    ({"mode": "latent", "ratio": 300, "effort": -1}, "effort is an integer from 0 to 4, got -1"),
    ({"mode": "latent", "ratio": 300, "effort": 5}, "effort is an integer from 0 to 4, got 5"),
    ({"mode": "latent", "ratio": 300, "effort": 0.5}, "effort is an integer from 0 to 4, got 0.5"),
    ({"mode": "latent", "ratio": 300, "effort": True}, "effort is an integer from 0 to 4, got True"),
    ({"mode": "latent", "ratio": 300, "model": ""}, "model is a name"),
    ({"bound": 0.1, "ratio": 300}, "ratio=300 belongs to mode 'latent', not 'abs': leave it out, or set mode='latent'"),
    ({"ratio": 300}, "ratio=300 belongs to mode 'latent'"),
    ({"mode": "lossless", "rmse": 0.5}, "rmse=0.5 belongs to mode 'latent', not 'lossless'"),
    ({"bound": 0.1, "effort": 1}, "effort=1 belongs to mode 'latent'"),
    ({"mode": "neural", "ratio": 3}, "mode 'neural' is unknown; allowed are abs, range, pointwise, lossless, latent"),
]


@pytest.mark.parametrize(("settings", "reason"), BAD)
def test_a_target_that_is_none_is_refused_by_every_way_in(settings: dict[str, Any], reason: str) -> None:
    for way in (Isopress, IsopressCodec, lambda **kw: isopress.compress(np.zeros((3, 4), "f4"), **kw)):
        with pytest.raises(ArgumentError, match=reason):
            way(**settings)


@pytest.mark.parametrize("settings", [RATIO_300, RMSE_HALF])
def test_both_codecs_keep_targets_in_their_configuration(settings: dict[str, Any]) -> None:
    v2, v3 = Isopress(**settings), IsopressCodec(**settings)
    assert numcodecs.get_codec(json.loads(json.dumps(v2.get_config()))) == v2
    assert v2.get_config() == {"id": "isopress", **settings}
    assert IsopressCodec.from_dict(json.loads(json.dumps(v3.to_dict()))) == v3
    assert v3.to_dict() == {"name": "isopress", "configuration": settings}
    assert v2.limit == v3.limit == Target(settings.get("ratio"), settings.get("rmse"))


def test_numpy_numbers_become_plain_ones() -> None:
    codec = Isopress(mode="latent", ratio=np.float32(300), effort=np.int64(1))
    assert json.loads(json.dumps(codec.get_config())) == {"id": "isopress", **RATIO_300, "effort": 1}


@pytest.mark.parametrize("dtype", ["i2", "f2", "?", "u8"])
def test_only_single_and_double_floats_have_latents(dtype: str) -> None:
    x = np.zeros((4, 5), dtype)
    with pytest.raises(ArgumentError, match=f"mode 'latent' codes float32 and float64, not {np.dtype(dtype)}: use"):
        isopress.compress(x, mode="latent", ratio=10)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        Isopress(**RATIO_300).encode(x)
    with pytest.raises(ArgumentError, match="mode 'latent' codes"):
        zarr.create_array({}, shape=x.shape, dtype=x.dtype, serializer=IsopressCodec(**RATIO_300), compressors=None)


def test_a_chunk_is_on_target_within_three_per_cent() -> None:
    error, ratio = Target(rmse=0.5), Target(ratio=300)
    assert [error.allows(rmse) for rmse in (0.0, 0.5, 0.514, 0.516, np.nan)] == [True, True, True, False, False]
    assert [ratio.reached_by(times) for times in (1e6, 300, 292, 291)] == [True, True, True, False]
    assert ratio.allows(1e9)
    assert error.reached_by(1.0)


# --- what is told of decoded values -----------------------------------------------------------------------------------


def test_errors_are_measured_against_a_target() -> None:
    x = np.zeros((10, 10), "f4")
    x[0, 0] = np.nan
    off = x + np.float32(0.5)
    assert measure(x, off, Target(rmse=0.5)).violations == 0
    assert measure(x, off, Target(rmse=0.48)).violations == 1
    assert measure(x, off, Target(ratio=9)).violations == 0
    assert measure(x, off, Target(ratio=9)).rmse == 0.5
    for target in (Target(rmse=1e9), Target(ratio=9)):
        filled, lost, infinite = off.copy(), off.copy(), off.copy()
        filled[0, 0], lost[1, 1], infinite[1, 1:4] = 0, np.nan, np.inf
        assert measure(x, filled, target).violations == 1
        assert measure(x, lost, target).violations >= 1
        assert measure(x, infinite, target).violations >= 3
    only_nan = np.full((2, 2), np.nan, "f4")
    assert measure(only_nan, only_nan, Target(rmse=0.1)).violations == 0


@pytest.mark.parametrize(("bound", "text"), [(Target(ratio=300.0), "ratio 300"), (Target(rmse=0.25), "RMSE 0.25 K")])
def test_a_target_is_told_in_words_and_units(bound: Target, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = 2 if bound.ratio else None
    variable = VariableReport(
        "t", ("x",), (1,), (1,), "float32", "K", 400, 4, bound=bound, max_error=1.5, rmse=0.25, short_chunks=short
    )
    assert report.bound_text(variable) == text
    store = StoreReport("out.zarr", 3, (variable,), 4)
    report.show(store, as_json=False)
    shown = capsys.readouterr().out
    assert "bound or target" in shown
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == ["t"]]
    for figure in (text, "1.5", "0.25", "100.0x"):
        assert figure in line
    assert ("t: 2 chunks are too small for ratio 300" in shown) == bool(short)
    record = store.to_dict()["variables"][0]
    assert record["bound"] == {"mode": "latent", "ratio": bound.ratio, "rmse": bound.rmse}
    assert record["short_chunks"] == short


# --- text and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target(ratio=300.0), Target(rmse=0.1 + 0.2), Target(ratio=1.5)])
def test_a_target_survives_as_text(target: Target) -> None:
    assert parse_error(format_bound(target)).bound == target
    assert parse_error(f"u*={format_bound(target)}") == ErrorSpec("u*", target)


def test_ratio_and_rmse_take_a_number_with_or_without_a_name() -> None:
    assert parse_target("300", "ratio") == ErrorSpec("*", Target(ratio=300.0))
    assert parse_target("t2m=1e-3", "rmse") == ErrorSpec("t2m", Target(rmse=1e-3))
    specs = [parse_target("300", "ratio"), parse_error("t*=0.2"), parse_target("tp=1e-4", "rmse")]
    expected = {"u": Target(ratio=300.0), "t2m": Bound("abs", 0.2), "tp": Target(rmse=1e-4)}
    assert {name: last_match(specs, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("ratio", "t2m=many", "ratio 't2m=many': 'many' is not a number; examples: 300, t2m=300"),
        ("ratio", "t2m=1", r"ratio 't2m=1': ratio must be a finite number > 1 .* got 1\.0"),
        ("ratio", "=3", "names no variable"),
        ("ratio", "nan", "finite"),
        ("rmse", "t2m=0", "rmse 't2m=0': rmse must be a finite number > 0"),
        ("rmse", "t2m=1%", "is not a number"),
        ("error", "t2m=ratio:0.5", "error 't2m=ratio:0.5': ratio must be"),
        ("error", "t2m=rmse:0.5,floor=1", "takes no floor"),
    ],
)
def test_a_bad_number_is_named_with_its_variable(option: Any, text: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        parse_error(text) if option == "error" else parse_target(text, option)


def test_names_that_match_nothing_are_listed_with_the_option() -> None:
    with pytest.raises(ArgumentError, match="ratio for 'x': no such variable; --ratio can be set for: t2m"):
        check_specs([parse_target("x=3", "ratio")], ["t2m"], ["lat"])
    with pytest.raises(ArgumentError, match=r"rmse for 'la\?': lat: coordinates .* are always exact"):
        check_specs([parse_target("la?=3", "rmse")], ["t2m"], ["lat"])


def test_the_order_of_options_is_that_of_the_command_line() -> None:
    @click.command(cls=OrderedCommand)
    @click.option("--error", "errors", type=ERROR, multiple=True)
    @click.option("--ratio", "ratios", type=RATIO, multiple=True)
    @click.option("--rmse", "rmses", type=RMSE, multiple=True)
    @click.option("--other", multiple=True)
    @click.argument("name")
    @click.pass_context
    def command(ctx: click.Context, other: Any, name: str, **values: Any) -> None:
        click.echo(" ".join(format_bound(spec.bound) for spec in in_order(ctx, values)))

    line = ["--rmse", "a=1", "x", "--ratio=2", "--other", "--error", "--error", "b=3", "--rmse=4", "--ratio", "c=5"]
    assert CliRunner().invoke(command, line).stdout.split() == [
        "rmse:1.0",
        "ratio:2.0",
        "abs:3.0",
        "rmse:4.0",
        "ratio:5.0",
    ]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_netcdf(weather().drop_vars("station"), tmp_path_factory.mktemp("source") / "weather.nc")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--ratio", "t2m=1"], "ratio 't2m=1': ratio must be a finite number > 1"),
        (["--ratio", "t2m=0.5"], "got 0.5"),
        (["--rmse", "t2m=-1"], "rmse must be a finite number > 0"),
        (["--rmse", "many"], "'many' is not a number"),
        (["--ratio", "t2=9"], "no such variable; --ratio can be set for: t2m, tp, sst, index"),
        (["--rmse", "soil=9"], "soil: coordinates and non-float variables are always exact"),
        (["--effort", "1"], "effort 1 is for variables with a target: set --ratio or --rmse too"),
        (["--effort", "-1", "--ratio", "9"], "--effort"),
    ],
)
def test_bad_targets_are_refused_in_one_line(source: Path, tmp_path: Path, options: list[str], reason: str) -> None:
    result = run("compress", source, tmp_path / "out.zarr", *options)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert reason in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_later_bound_replaces_a_target(source: Path, tmp_path: Path) -> None:
    options = ["--ratio", "300", "--rmse", "tp=1e-4", "--error", "*=0.5"]
    assert run("compress", source, tmp_path / "out.zarr", *options).exit_code == 0
    report = json.loads(run("info", tmp_path / "out.zarr", "--json").stdout)
    asked = {variable["name"]: variable["error"] for variable in report["variables"] if variable["error"]}
    assert asked == dict.fromkeys(("t2m", "tp", "sst", "index"), "abs:0.5")
