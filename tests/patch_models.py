"""A small patch VAEformer's shape and input, for the tests of its blocks, itself and its training."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from isopress.codec.training.pyramid_pool import Field
from isopress.codec.vaeformer.config import PatchConfig

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
