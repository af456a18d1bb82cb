"""Training of named channels: streamed windows, running mean, resuming, several processes, and coding with it."""

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from numpy.typing import NDArray

import isopress
from isopress.cli.main import main
from isopress.codec.encoded import Method
from isopress.codec.errors import ArgumentError
from isopress.codec.training.loop import load_checkpoint, together
from isopress.codec.training.vaeformer_channels import ChannelTask, ChannelTraining, noise_of, train, trial
from isopress.codec.vaeformer.config import ModelSpec, spec_of
from isopress.format.source.training_data import StoreWindows
from tests.fields import BLOCKY_DEVIATION, BLOCKY_MEAN, blocky
from tests.vaeformer_models import CONFIG, NAMES

SPEC = ModelSpec(CONFIG, NAMES)
TRAINING = ChannelTraining(
    steps=8, batch=2, crop=(16, 16), round=2, validate_every=2, validation=2, statistics=4, warm_up=2,
    stage_two_from=0.25, stage_three_from=0.75,
)  # fmt: skip
# Later stages round: there a last bit of a sum can become a whole step, and two runs drift apart by a few percent.
SMOOTH = replace(TRAINING, stage_two_from=2.0, stage_three_from=3.0)
TOML = """
channels = [["t", 850], ["t", 500], "u10"]

[network]
kernel = [4, 4]
stride = [4, 4]
dim = 8
heads = 2
depth = 2
windows = [[4, 4]]
latents = 12
hyper_dim = 8
hyper_heads = 2
hyper_depth = 1
hyper_hidden = 8
hyper_latents = 4
hyper_patch = 2
scale_neurons = 6

[training]
steps = 6
batch = 2
crop = [16, 16]
round = 2
validate_every = 1
validation = 2
statistics = 4
"""


class Blocks:
    """Windows of generated fields."""

    def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
        return blocky(shape=shape, seed=int(rng.integers(50)))


def test_stages_follow_each_other_and_what_is_kept_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [noise_of(done, TRAINING) for done in (0, 0.3, 0.8)] == ["variational", "uniform", "hard"]
    out = tmp_path / "mine.safetensors"
    progress = train(SPEC, Blocks(), Blocks(), out, TRAINING)
    assert progress.rounds == 4
    assert len(progress.validation) == 3
    assert np.isfinite(progress.loss)
    monkeypatch.setenv("ISOPRESS_MODELS", str(tmp_path))
    x = blocky(shape=(24, 20))
    payload = isopress.compress(x, mode="latent", ratio=12, model="mine")
    assert isopress.inspect(payload).method == Method.VAEFORMER
    assert isopress.decompress(payload).shape == x.shape


def test_validation_sees_larger_windows_if_asked_to(tmp_path: Path) -> None:
    seen = list[tuple[int, int]]()

    class Held(Blocks):
        def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
            seen.append(shape)
            return super().window(rng, shape)

    for crop in (None, (24, 40)):
        training = replace(TRAINING, validation_crop=crop)
        ChannelTask(SPEC, Blocks(), Held(), tmp_path / "any.safetensors", training, "cpu")
    assert seen == [(16, 16)] * 2 + [(24, 40)] * 2


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(SPEC, Blocks(), Blocks(), whole, TRAINING)
    training = replace(TRAINING, stage_two_from=0.0, stage_three_from=2.0)  # stages lie at parts of the run
    train(SPEC, Blocks(), Blocks(), whole, training)
    stopped = replace(training, steps=4)
    train(SPEC, Blocks(), Blocks(), parts, stopped)
    saved = load_checkpoint(parts.with_suffix(".ckpt"))
    assert saved["task"]["steps"] == 4
    progress = train(SPEC, Blocks(), Blocks(), parts, training, resume=True)
    assert progress.rounds == 4
    assert load_checkpoint(parts.with_suffix(".ckpt"))["task"]["steps"] == 8
    other = ModelSpec(replace(CONFIG, dim=16), NAMES)
    with pytest.raises(ArgumentError, match="configuration"):
        train(other, Blocks(), Blocks(), parts, training, resume=True)


def _learn(rank: int, port: str, out: Path) -> None:
    """Train in one of two processes."""
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    with together("cpu") as (_, device):
        train(SPEC, Blocks(), Blocks(), out, SMOOTH, device=device)


def test_two_processes_learn_what_one_learns_with_twice_the_batch(tmp_path: Path) -> None:
    alone, both = tmp_path / "alone.safetensors", tmp_path / "both.safetensors"
    train(SPEC, Blocks(), Blocks(), alone, replace(SMOOTH, batch=4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.codec.test_training_channels", "torch._dynamo"])  # once for both: seconds
    processes = [context.Process(target=_learn, args=(rank, port, both)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    train(SPEC, Blocks(), Blocks(), tmp_path / "less.safetensors", SMOOTH)
    one, two, less = (load_checkpoint(tmp_path / f"{name}.ckpt")["task"] for name in ("alone", "both", "less"))
    start = ChannelTask(SPEC, Blocks(), Blocks(), Path(), SMOOTH, "cpu").model.state_dict()

    def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5

    for part in ("model", "mean"):
        assert distance(one[part], two[part]) < 2e-3 * distance(one[part], start)
        assert distance(one[part], less[part]) > 0.2 * distance(one[part], start)


def test_examples_and_their_noise_do_not_depend_on_the_batch() -> None:
    from isopress.codec.vaeformer.model import quantise

    x = torch.zeros(3, 4, 5)
    together = quantise(x, "uniform", [5, 6, 7])
    for i in range(3):
        torch.testing.assert_close(quantise(x[i : i + 1], "uniform", [5 + i])[0], together[i], rtol=0, atol=0)
    assert together.std() > 0.2


def dataset(times: int = 20) -> xr.Dataset:
    t, u = np.empty((times, 3, 24, 32), np.float32), np.empty((times, 24, 32), np.float32)
    for i in range(times):
        x = blocky(shape=(24, 32), seed=i)
        t[i, 0], t[i, 2], u[i], t[i, 1] = x[0], x[1], x[2], i
    u[:, 3, 4] = np.nan
    return xr.Dataset(
        {"t": (("time", "level", "lat", "lon"), t), "u10": (("time", "lat", "lon"), u)},
        {"level": [850.0, 700.0, 500.0], "time": np.arange(times)},
    )


def test_windows_are_read_by_name_and_level_from_stores_and_files(tmp_path: Path) -> None:
    whole = dataset()
    whole.to_zarr(tmp_path / "a.zarr", consolidated=False)
    folder = tmp_path / "files"
    folder.mkdir()
    for i in range(2):
        whole.isel(time=slice(10 * i, 10 * i + 10)).to_netcdf(folder / f"{i}.nc")
    for path in (tmp_path / "a.zarr", folder):
        windows = StoreWindows(path, NAMES, (0, 0.5))
        seen = [windows.window(np.random.default_rng(i), (8, 64)) for i in range(30)]
        assert {x.shape for x in seen} == {(3, 8, 32)}
        assert all(np.isfinite(x).all() for x in seen)
        np.testing.assert_array_equal(seen[3], windows.window(np.random.default_rng(3), (8, 64)))
        np.testing.assert_allclose(np.stack(seen).mean((0, 2, 3)), BLOCKY_MEAN, atol=3)
        for names, message in (
            ((("w", None),), "no variable w"),
            ((("t", 300.0),), "no level 300"),
            ((("t", None),), "has levels"),
        ):
            with pytest.raises(ArgumentError, match=message):
                StoreWindows(path, names, (0, 1))
    with pytest.raises(ArgumentError, match="neither"):
        StoreWindows(tmp_path / "nothing", NAMES, (0, 1))


def test_the_command_trains_what_a_file_describes(tmp_path: Path) -> None:
    dataset().to_zarr(tmp_path / "data.zarr", consolidated=False)
    config, out = tmp_path / "model.toml", tmp_path / "mine.safetensors"
    config.write_text(TOML)
    assert spec_of(str(config)).config == CONFIG
    options = ["train", "vaeformer", "--config", config, "--data", tmp_path / "data.zarr", "--out", out, "--threads", 1]
    dry = CliRunner().invoke(main, [*map(str, options), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "days for 6 steps" in dry.output
    assert not out.exists()
    done = CliRunner().invoke(main, list(map(str, options)))
    assert done.exit_code == 0, done.output
    card = out.with_suffix(".md").read_text()
    assert "training fields: data.zarr" in card
    assert out.with_suffix(".ckpt").is_file()
    config.write_text(TOML + "colour = 3\n")
    wrong = CliRunner().invoke(main, [*map(str, options), "--resume"])
    assert wrong.exit_code == 2
    assert "colour" in wrong.output


def test_a_trial_says_what_a_training_would_take() -> None:
    found = trial(SPEC, Blocks(), TRAINING, "cpu")
    assert list(found) == ["parameters", "memory", "speed", "time"]
    assert "days for 8 steps" in found["time"]


def test_channels_that_do_not_vary_and_models_that_code_nothing_are_refused(tmp_path: Path) -> None:
    class Still(Blocks):
        def window(self, rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
            return np.ones((3, *shape), np.float32)

    assert BLOCKY_DEVIATION.min() > 0
    with pytest.raises(ArgumentError, match="channel t, level 850"):
        train(SPEC, Still(), Still(), tmp_path / "a.safetensors", TRAINING)
    with pytest.raises(ArgumentError, match="codes nothing"):
        train(
            ModelSpec(replace(CONFIG, scale_neurons=0), NAMES), Blocks(), Blocks(), tmp_path / "a.safetensors", TRAINING
        )
