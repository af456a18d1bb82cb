"""`isopress train`: what the options mean to the training, and what a training leaves behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from safetensors.numpy import save

from isopress.cli import train_report
from isopress.cli.main import main
from isopress.codec.models.registry import VARIABLE, describe, find
from isopress.codec.training import latent, vaeformer_channels
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.vaeformer.config import ModelSpec
from isopress.codec.vaeformer.weights import load_vaeformer
from tests.fields import spectral_field
from tests.vaeformer_models import TINY

PNG = b"\x89PNG\r\n\x1a\n"
WEIGHTS = save({"a": np.zeros(3, "f4")}, metadata={"kind": "latent"})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    fields = {name: (("y", "x"), spectral_field(72, 80, seed=i).astype("f4")) for i, name in enumerate(names)}
    xr.Dataset(fields).to_netcdf(path / "a.nc")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "data", "t", "u")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a training was called with; it takes no time and learns nothing, but reports and writes as one does."""
    seen: list[dict[str, Any]] = []

    def train(
        fields: list[Field],
        validation: list[Field],
        out: Path,
        config: Any,
        *,
        resume: bool,
        init: Path | None,
        report: Callable[[Any], None],
    ) -> Any:
        seen.append({"fields": fields, "held": validation, "config": config, "resume": resume, "init": init})
        out.write_bytes(WEIGHTS)
        progress = latent.Progress(seconds=90.0, validation=[(30.0, 2.5), (60.0, 1.25), (90.0, 1.5)])
        report(progress)
        return progress

    monkeypatch.setattr(latent, "train", train)
    return seen


def test_options_reach_the_training(data: Path, tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    held = folder_of(tmp_path / "held", "v")
    out = tmp_path / "own.safetensors"
    options = ["--data", data, "--validation", held, "--out", out, "--minutes", "7.5", "--threads", "1", "--seed", "3"]
    assert run("latent", *options, "--config", "base").exit_code == 0
    (call,) = calls
    assert {field.name for field in call["fields"]} == {"a/t", "a/u"}
    assert {field.name for field in call["held"]} == {"a/v"}
    base = latent.CONFIGS["base"]
    config = call["config"]
    assert (config.minutes, config.threads, config.seed, config.widths) == (7.5, 1, 3, base.widths)
    assert (call["resume"], call["init"]) == (False, None)
    assert run("latent", *options, "--resume").exit_code == 0
    assert calls[1]["resume"]
    assert calls[1]["config"].widths == latent.CONFIGS["small"].widths


def test_a_training_leaves_a_card_and_the_curve_of_its_validations(
    data: Path, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    out = tmp_path / "own.safetensors"
    result = run("latent", "--data", data, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert calls[0]["config"].minutes == latent.CONFIGS["small"].minutes
    card = out.with_suffix(".md").read_text()
    assert f"validation: {latent.SCORE} 1.25000" in card
    assert "training fields: 1 of 1 variables (a/u)" in card
    assert "validation fields: 1 of 1 variables (a/t)" in card
    assert f"validation {latent.SCORE} 1.50000" in " ".join(result.stdout.split())
    assert out.with_suffix(".png").read_bytes().startswith(PNG)


def test_without_matplotlib_there_is_no_curve_but_a_hint(
    data: Path, tmp_path: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_report, "find_spec", lambda name: None)
    out = tmp_path / "own.safetensors"
    result = run("latent", "--data", data, "--out", out)
    assert result.exit_code == 0
    assert "pip install 'isopress[report]'" in result.stderr
    assert out.with_suffix(".md").exists()
    assert not out.with_suffix(".png").exists()


def test_a_training_starts_from_weights_by_name_or_file(
    data: Path, tmp_path: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "first.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setenv("ISOPRESS_MODELS", str(folder))
    for number, init in enumerate(("first", str(folder / "first.safetensors"))):
        out = tmp_path / f"{number}.safetensors"
        assert run("latent", "--data", data, "--out", out, "--init", init).exit_code == 0
    assert [call["init"] for call in calls] == [folder / "first.safetensors"] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--out", "own.pt"], "must end in .safetensors"),
        (["--out", "own.safetensors", "--config", "huge"], "'huge' is unknown; there are: small, base"),
        (["--out", "own.safetensors", "--init", "nix"], "--init: no weights 'nix'"),
        (["--out", "own.safetensors", "--init", "block-0.8"], "weights of kind pyramid, but latent is needed"),
        (["--out", "own.safetensors", "--minutes", "0"], "--minutes"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    data: Path, tmp_path: Path, calls: list[dict[str, Any]], options: list[str], reason: str
) -> None:
    options[1] = str(tmp_path / options[1])
    result = run("latent", "--data", data, *options)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert reason in result.stderr
    assert not calls


def test_what_weights_cost_is_told_by_level_and_phase(data: Path, tmp_path: Path) -> None:
    weights = str(find("field-0.9").path)
    result = run("score", "field-0.9", weights, "--data", data, "--points", "5000")
    assert result.exit_code == 0, result.stderr
    head, *rows, last = (line.split("\t") for line in result.stdout.splitlines())
    assert head == ["level", "phase", "values", "field-0.9", weights]
    assert [row[:2] for row in rows] == [[str(level), phase] for level in range(4) for phase in "DHV"]
    assert {row[-1] for row in [*rows, last]} == {"1.0000"}
    assert int(last[2]) == sum(int(row[2]) for row in rows)
    wrong = run("score", "latent-0.8", "--data", data)
    assert (wrong.exit_code, "pyramid is needed" in wrong.stderr) == (2, True)


def test_a_patch_vaeformer_is_trained_and_leaves_weights_and_a_card(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(
        vaeformer_channels.SINGLE_FIELDS, crop=(32, 32), validation_crop=None, batch=2, round=1, validation=1
    )
    monkeypatch.setattr(vaeformer_channels, "SINGLE_FIELDS", tiny)
    monkeypatch.setattr(vaeformer_channels, "SMALL", ModelSpec(TINY, (("field", None),)))
    out = tmp_path / "patch.safetensors"
    dry = run("vaeformer", "--data", data, "--out", out, "--steps", "2", "--threads", "1", "--dry-run")
    assert (dry.exit_code, out.exists(), "days for 2 steps" in dry.output) == (0, False, True), dry.output
    result = run("vaeformer", "--data", data, "--out", out, "--steps", "2", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    assert describe(out).kind == "vaeformer"
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert load_vaeformer("patch").network.config == TINY
    assert f"validation: {vaeformer_channels.SCORE}" in out.with_suffix(".md").read_text()


NAMED = """
channels = ["u10", "t2m"]

[network]
kernel = [4, 4]
stride = [4, 4]
dim = 8
heads = 2
depth = 1
latents = 32
linear = "wavelet"
hyper_dim = 8
hyper_heads = 2
hyper_depth = 1
hyper_hidden = 8
hyper_latents = 4

[training]
measured = false
steps = 2
batch = 1
round = 1
crop = [32, 32]
validation = 1
statistics = 2
"""


def test_weights_of_no_unit_learn_from_all_sources_that_have_the_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held = folder_of(tmp_path / "data", "u10", "t2m", "tp"), folder_of(tmp_path / "held", "10u", "2t")
    (tmp_path / "two.toml").write_text(NAMED)
    out = tmp_path / "two.safetensors"
    options = ["--config", tmp_path / "two.toml", "--data", data, "--out", out, "--threads", "1"]
    alone = run("vaeformer", *options)
    assert (alone.exit_code, "need --validation" in alone.stderr) == (2, True)
    lacking = run("vaeformer", *options, "--validation", folder_of(tmp_path / "rain", "tp"))
    assert (lacking.exit_code, "no source has fields u10, t2m" in lacking.stderr) == (2, True)
    result = run("vaeformer", *options, "--validation", held)
    assert result.exit_code == 0, result.stderr
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert load_vaeformer("two").channels.unnormalised


def test_weights_that_are_there_are_not_overwritten(data: Path, tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    out = tmp_path / "own.safetensors"
    out.write_bytes(b"years of work")
    result = run("latent", "--data", data, "--out", out)
    assert (result.exit_code, out.read_bytes()) == (2, b"years of work")
    assert "--resume" in result.stderr
