"""A checkpoint as CRA5 saves it, small and of random weights, its statistics, and files of its format."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DIM, HYPER, LATENTS, HYPER_LATENTS, CHANNELS = 16, 8, 4, 6, 3
SHAPE = (25, 28)  # 6 x 7 patches of 5 x 5, every 4
CONFIG = """
channels = [["t", 1000], ["t", 500], "t2m"]
shape = [25, 28]

[network]
kernel = [5, 4]
stride = [4, 4]
dim = 16
heads = 2
depth = 2
windows = [[4, 4]]
global_every = 2
shift = false
depthwise = false
positions = [6, 7]
latents = 4
hyper_dim = 8
hyper_heads = 2
hyper_depth = 1
hyper_hidden = 5
hyper_latents = 6
hyper_patch = 2
conditioned = false
published = true
"""
_MEANS = {"t": [270.0 + i for i in range(37)], "t2m": 288.0}
_DEVIATIONS = {"t": [10.0 + i for i in range(37)], "t2m": 21.0}


def checkpoint(seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict with the names and shapes of the published one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float | None = None) -> Tensor:
        scale = 1 / math.sqrt(math.prod(shape[1:]) or 1) if scale is None else scale
        return scale * torch.randn(shape, generator=generator)

    out = dict[str, Tensor]()

    def linear(name: str, n_out: int, *n_in: int, scale: float | None = None) -> None:
        out[f"{name}.weight"] = normal(n_out, *n_in, scale=scale)
        out[f"{name}.bias"] = normal(n_out, scale=0.1)

    def norm(name: str, dim: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = 1 + normal(dim, scale=0.1), normal(dim, scale=0.1)

    def blocks(name: str, count: int, dim: int) -> None:
        for i in range(count):
            block = f"{name}.blocks.{i}"
            norm(f"{block}.norm1", dim)
            linear(f"{block}.attn.qkv", 3 * dim, dim)
            linear(f"{block}.attn.proj", dim, dim)
            norm(f"{block}.norm2", dim)
            linear(f"{block}.mlp.fc1", 4 * dim, dim)
            linear(f"{block}.mlp.fc2", dim, 4 * dim)

    linear("g_a.patch_embed.proj", DIM, CHANNELS, 5, 4)
    out["g_a.pos_embed"] = normal(1, 42, DIM, scale=0.1)
    blocks("g_a", 3, DIM)
    linear("quant_conv", 2 * LATENTS, 2 * DIM, 1, 1, scale=0.6)
    linear("post_quant_conv", DIM, LATENTS, 1, 1)
    blocks("g_s", 2, DIM)
    norm("g_s.norm", DIM)
    out["g_s.final.weight"] = normal(DIM, CHANNELS, 5, 4, scale=0.1)
    linear("h_a.patch_embed.proj", HYPER, LATENTS, 2, 2)
    out["h_a.pos_embed"] = normal(1, 12, HYPER, scale=0.1)
    blocks("h_a", 1, HYPER)
    linear("h_a.quan_mlp.fc1", 5, HYPER)
    linear("h_a.quan_mlp.fc2", HYPER_LATENTS, 5, scale=2.0)
    linear("h_s.post_quan_mlp.fc1", 5, HYPER_LATENTS)
    linear("h_s.post_quan_mlp.fc2", HYPER, 5)
    blocks("h_s", 1, HYPER)
    norm("h_s.norm", HYPER)
    linear("h_s.final", 2 * 2 * 2 * LATENTS, HYPER, scale=1.0)
    del out["h_s.final.bias"]
    _entropy(out, normal)
    return {f"backbone.{name}": tensor for name, tensor in out.items()} | {"backbone.kl_loss.logvar": torch.zeros(1)}


def _entropy(out: dict[str, Tensor], normal) -> None:  # type: ignore[no-untyped-def]
    widths = (1, 3, 3, 3, 3, 1)
    for i in range(5):
        out[f"entropy_bottleneck._matrix{i}"] = normal(HYPER_LATENTS, widths[i + 1], widths[i])
        out[f"entropy_bottleneck._bias{i}"] = normal(HYPER_LATENTS, widths[i + 1], 1)
        if i < 4:
            out[f"entropy_bottleneck._factor{i}"] = normal(HYPER_LATENTS, widths[i + 1], 1)
    out["entropy_bottleneck.quantiles"] = normal(HYPER_LATENTS, 1, 3, scale=0.5)
    out["entropy_bottleneck.target"] = torch.zeros(3)
    scales = np.exp(np.linspace(math.log(0.11), math.log(256), 64))
    tables = {"entropy_bottleneck": [1.5] * HYPER_LATENTS, "gaussian_conditional": scales.tolist()}
    for name, widths_of in tables.items():
        rows = [gaussian(scale) for scale in widths_of]
        cdf = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for row, values in zip(cdf, rows, strict=True):
            row[: len(values)] = values
        lengths = np.array([len(row) for row in rows], np.int32)
        out[f"{name}._quantized_cdf"] = torch.from_numpy(cdf)
        out[f"{name}._cdf_length"] = torch.from_numpy(lengths)
        out[f"{name}._offset"] = torch.from_numpy(-((lengths - 3) // 2).astype(np.int32))
    out["gaussian_conditional.scale_table"] = torch.from_numpy(scales.astype(np.float32))
    out["gaussian_conditional.scale_bound"] = torch.zeros(1)


def gaussian(scale: float) -> list[int]:
    """Return the cumulative frequencies of the symbols -A..A and of all others, the last entry 65536."""
    a = max(1, round(2 * scale))  # so that some symbols lie outside
    edges = [math.erf((k - 0.5) / scale / math.sqrt(2)) for k in range(-a, a + 2)]
    mass = np.diff(edges).tolist()
    weights = np.array([*mass, max(2 - sum(mass), 0.01)])
    frequencies = 1 + np.floor(weights / weights.sum() * (2**16 - len(weights))).astype(int)
    frequencies[a] += 2**16 - frequencies.sum()
    return [0, *np.cumsum(frequencies).tolist()]


def save_checkpoint(folder: Path, name: str = "cra5_268v_300k", seed: int = 0) -> tuple[Path, Path, Path]:
    """Write a checkpoint, its configuration and its statistics; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, config, statistics = folder / f"{name}.pth", folder / "small.toml", folder / "mean_std.json"
    torch.save(checkpoint(seed), weights)
    config.write_text(CONFIG)
    statistics.write_text(json.dumps({"mean": _MEANS, "std": _DEVIATIONS}))
    return weights, config, statistics


def smooth(seed: int = 0) -> NDArray[np.float32]:
    """Return smooth fields (C, H, W) with deviation 1."""
    x = np.random.default_rng(seed).standard_normal((CHANNELS, *SHAPE)).cumsum(1).cumsum(2)
    return ((x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)).astype(np.float32)
