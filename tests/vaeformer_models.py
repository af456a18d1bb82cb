"""Small weights of a VAEformer that codes well enough for tests; no training, no wait."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.vaeformer import keep_patch
from isopress.codec.vaeformer.channels import ANY, Channels
from isopress.codec.vaeformer.config import PatchConfig
from isopress.codec.vaeformer.model import PatchVAEformer
from tests.fields import BLOCKY_DEVIATION as DEVIATION
from tests.fields import BLOCKY_MEAN as MEAN

NAMES = (("t", 850.0), ("t", 500.0), ("u10", None))
CONFIG = PatchConfig(
    channels=3, kernel=(4, 4), stride=(4, 4), dim=8, heads=2, depth=2, windows=((4, 4),), latents=12,
    hyper_dim=8, hyper_heads=2, hyper_depth=1, hyper_hidden=8, hyper_latents=4, hyper_patch=2, scale_neurons=6,
)  # fmt: skip

# Fields of any variable, each with a mean and deviation of its own; a wavelet, windows in the hyperprior.
ALONE = replace(CONFIG, channels=1, linear="wavelet", latents=16, hyper_window=(2, 2))


def save_small(path: Path, config: PatchConfig = CONFIG, seed: int = 0, largest: int = 0) -> None:
    """Write weights whose linear path does most of the work; transformers add a little.

    largest : of integers that stand for matrices, if they do.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PatchVAEformer(config)
        integer = network.hyper_decoder.integer
        assert integer is not None
        with torch.no_grad():
            network.decoder.fields.conv.weight.mul_(0.02)
            network.encoder.head.weight.mul_(0.1)
            network.hyper_decoder.latents.conv.weight.mul_(0.3)
            network.hyper_encoder.head[2].weight.mul_(20)
            torch.nn.init.normal_(integer.last.weight, std=0.3)
        channels = Channels(NAMES[: config.channels], MEAN[: config.channels], DEVIATION[: config.channels])
        if config == ALONE:
            channels = Channels((ANY,), np.zeros(1, np.float32), np.ones(1, np.float32))
        keep_patch(network, path, channels, np.tile([-3.0, 3.0], (config.hyper_latents, 1)), largest=largest)


# --- shape and input of a tiny one ------------------------------------------------------------------------------------


TINY = PatchConfig(
    kernel=(4, 4), stride=(4, 4), dim=16, heads=2, depth=2, windows=((4, 4),), latents=16,
    hyper_dim=16, hyper_heads=2, hyper_depth=1, hyper_hidden=8, hyper_latents=4, hyper_patch=2,
)  # fmt: skip


def shaken(module: nn.Module) -> nn.Module:
    """Return the module with noise on every parameter, so that nothing is 0 as it is at the start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def rough(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Return a random field with much power at large scales."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None] * shape[0], np.fft.rfftfreq(shape[1]) * shape[1])
    x = np.fft.irfft2(spectrum / (1 + k) ** 1.8, shape)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def fields() -> list[Field]:
    return [Field(f"noise/{i}", rough((48, 80), i)[None, None]) for i in range(4)]
