"""CRA5's checkpoint -> our weights: every tensor renamed, some reshaped, none changed, nothing left over."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from isopress.codec.errors import ArgumentError
from isopress.codec.vaeformer.channels import cra5_statistics
from isopress.codec.vaeformer.config import ModelSpec, PatchConfig
from isopress.codec.vaeformer.layers import PRIOR_WIDTHS, token_count
from isopress.codec.vaeformer.model import PatchVAEformer
from isopress.codec.vaeformer.weights import save_cra5

PREFIX = "backbone."
_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def import_checkpoint(path: Path, spec: ModelSpec, statistics: Sequence[Path], out: Path) -> None:
    """Write the weights `out` of the published checkpoint at `path`; of that nothing but tensors is read.

    Parameters
    ----------
    spec : ModelSpec
        Its geometry and channels, which the file does not tell.
    statistics : sequence of Path
        The JSON files with the mean and deviation of each channel that come with CRA5's code.

    Raises
    ------
    ArgumentError
        `path` is no checkpoint, holds more than tensors, or does not fit `spec`; statistics are missing.
    """
    if spec.shape is None or not spec.config.published:
        raise ArgumentError("the configuration is not one of CRA5's: it needs published = true and a shape")
    channels = cra5_statistics([_json(file) for file in statistics], spec.channels)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArgumentError(f"{path}: not a checkpoint that holds tensors alone ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ArgumentError(f"{path}: not a checkpoint of tensors by name")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    save_cra5(out, from_checkpoint(state, spec.config), spec.config, channels, spec.shape, digest)


def _json(path: Path) -> Mapping[str, dict[str, object]]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ArgumentError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"{path}: no statistics by name")
    return found


def from_checkpoint(state: Mapping[str, Tensor], config: PatchConfig) -> dict[str, Tensor]:
    """Return the tensors of our modules and tables, made of a published checkpoint.

    Raises
    ------
    ArgumentError
        Tensors are missing, left over, or have other shapes than `config` needs.
    """
    found = {key.removeprefix(PREFIX): value for key, value in state.items() if "kl_loss.logvar" not in key}
    out = dict[str, Tensor]()
    try:
        for ours, theirs in _names(config).items():
            out[ours] = found.pop(theirs)
        _reshape(out, config)
    except KeyError as error:
        raise ArgumentError(f"the checkpoint has no tensor {error}") from error
    except RuntimeError as error:
        raise ArgumentError(f"the checkpoint is of another geometry: {' '.join(str(error).split())[:300]}") from error
    # What only training needs.
    unused = ("target", "bound")
    if left := [key for key in found if not key.endswith(unused)]:
        raise ArgumentError(f"the checkpoint has {len(left)} tensors that the model has not, such as {left[0]}")
    with torch.device("meta"):
        wanted = {key: tensor.shape for key, tensor in PatchVAEformer(config).state_dict().items()}
    for key, shape in wanted.items():
        if out[key].shape != shape:
            raise ArgumentError(f"the checkpoint's {key} has shape {tuple(out[key].shape)}, not {tuple(shape)}")
    return {key: tensor.contiguous() for key, tensor in out.items()}


def _names(config: PatchConfig) -> dict[str, str]:
    """Return the published key of each of our tensors."""
    pairs = {
        "encoder.patches.conv": "g_a.patch_embed.proj",
        "encoder.head": "quant_conv",
        "decoder.tokens": "post_quant_conv",
        "decoder.norm": "g_s.norm",
        "hyper_encoder.patches.conv": "h_a.patch_embed.proj",
        "hyper_encoder.head.0": "h_a.quan_mlp.fc1",
        "hyper_encoder.head.2": "h_a.quan_mlp.fc2",
        "hyper_decoder.tokens.0": "h_s.post_quan_mlp.fc1",
        "hyper_decoder.tokens.2": "h_s.post_quan_mlp.fc2",
        "hyper_decoder.norm": "h_s.norm",
    }
    stacks = (("encoder", "g_a", config.depth), ("decoder", "g_s", config.depth))
    hyper = (("hyper_encoder", "h_a", config.hyper_depth), ("hyper_decoder", "h_s", config.hyper_depth))
    blocks = {f"{ours}.blocks.{i}": f"{theirs}.blocks.{i}" for ours, theirs, n in stacks + hyper for i in range(n)}
    blocks["encoder.variance_block"] = f"g_a.blocks.{config.depth}"
    for ours, theirs in blocks.items():
        pairs |= {f"{ours}.{mine}": f"{theirs}.{part}" for part, mine in _BLOCK.items()}
    names = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in pairs.items() for kind in ("weight", "bias")}
    names |= {
        "encoder.embedding.position.table": "g_a.pos_embed",
        "hyper_encoder.embedding.position.table": "h_a.pos_embed",
        "decoder.fields.conv.weight": "g_s.final.weight",
        "hyper_decoder.latents.conv.weight": "h_s.final.weight",
        "prior.medians": "entropy_bottleneck.quantiles",
        "scales": "gaussian_conditional.scale_table",
    }
    for i in range(len(PRIOR_WIDTHS) - 1):
        names |= {f"prior.matrices.{i}": f"entropy_bottleneck._matrix{i}"}
        names |= {f"prior.biases.{i}": f"entropy_bottleneck._bias{i}"}
        if i < len(PRIOR_WIDTHS) - 2:
            names |= {f"prior.factors.{i}": f"entropy_bottleneck._factor{i}"}
    for ours, theirs in (("tables", "gaussian_conditional"), ("hyper_tables", "entropy_bottleneck")):
        names |= {f"{ours}.{part}": f"{theirs}._{part}" for part in ("quantized_cdf", "cdf_length", "offset")}
    return names


def _reshape(out: dict[str, Tensor], config: PatchConfig) -> None:
    """Give tensors that hold the same numbers in another order the shapes of our modules."""
    for key in ("encoder.head.weight", "decoder.tokens.weight"):
        out[key] = out[key][:, :, 0, 0]
    positions = config.positions or (0, 0)
    out["encoder.embedding.position.table"] = out["encoder.embedding.position.table"].reshape(1, *positions, -1)
    patch = config.hyper_patch
    grid = tuple(token_count(n, patch, patch) for n in positions)
    table = "hyper_encoder.embedding.position.table"
    out[table] = out[table].reshape(1, *grid, -1)
    # (p1, p2, channel), channel fastest, to the weight of a transposed convolution (D, channel, p1, p2)
    final = out["hyper_decoder.latents.conv.weight"].reshape(patch, patch, 2 * config.latents, config.hyper_dim)
    out["hyper_decoder.latents.conv.weight"] = final.permute(3, 2, 0, 1)
    out["prior.medians"] = out["prior.medians"][:, 0, 1]
