"""Configurations of the plain patch VAEformer: everything that shapes its networks."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from isopress.codec.errors import ArgumentError
from isopress.codec.vaeformer.channels import CRA5_CHANNELS, Name

Pair = tuple[int, int]  # along latitude and longitude
Linear = Literal["cosine", "wavelet"]
_MOST, _MOST_SIDE, _MOST_BLOCKS, _MOST_RATIO = 2**16, 64, 256, 64  # of channels; of a patch; blocks; an MLP's width


@dataclass(frozen=True)
class PatchConfig:
    """Sizes of a patch VAEformer; `small` differs from the defaults.

    Parameters
    ----------
    channels : int
        Fields that share one latent.
    kernel, stride : (int, int)
        Of the convolution that makes patches tokens, in grid cells.
    dim, heads, depth : int
        Channels and heads of the tokens; blocks of the analysis and, as many again, of the synthesis.
    mlp_ratio : float
        Width of an MLP's hidden layer over `dim`.
    windows : tuple of (int, int)
        Windows of the blocks in turn, in tokens.
    global_every : int
        Every so many blocks one attends to the whole grid; 0 for none.
    shift, depthwise : bool
        Whether every second block shifts its windows; whether blocks begin with a depthwise convolution.
    positions : (int, int), optional
        Token grid of the learned positions; None for none.
    latents : int
        Channels of the latent.
    hyper_dim, hyper_heads, hyper_depth, hyper_hidden, hyper_latents, hyper_patch : int
        The same of the hyperprior, whose patches are hyper_patch**2 tokens; hyper_hidden is the width between its
        tokens and the hyper-latent.
    hyper_window : (int, int), optional
        Windows of the hyperprior's blocks; None if they attend to the whole grid.
    conditioned : bool
        Whether the model knows the step of the quantiser and has a linear path from patches to latents and back.
    linear : {"cosine", "wavelet"}
        That path: each patch by itself, or several scales of the whole field.
    published : bool
        Whether windows, scales and hyper-latents are those of CRA5's published code: windows of a fixed size, padded
        with zeros that take part; scales as the last layer gives them; hyper-latents rounded around learned medians.
    scale_neurons : int
        Of the integer network that gives the scales of latents; 0 for scales that are floats, which no payload has.

    Raises
    ------
    ValueError
        `conditioned` with patches that overlap, more latents than values in a patch, or `published`; integer scales
        of a model that is not `conditioned`; a wavelet of patches whose sides are not one power of two, or with
        another number of latents than values in a patch. A size is no number of its kind, or beyond what any model
        has: sizes come from files of others.
    """

    channels: int = 1
    kernel: Pair = (8, 8)
    stride: Pair = (8, 8)
    dim: int = 192
    heads: int = 6
    depth: int = 3
    mlp_ratio: float = 4.0
    windows: tuple[Pair, ...] = ((8, 8),)
    global_every: int = 0
    shift: bool = True
    depthwise: bool = True
    positions: Pair | None = None
    latents: int = 64
    hyper_dim: int = 128
    hyper_heads: int = 4
    hyper_depth: int = 2
    hyper_hidden: int = 64
    hyper_latents: int = 24
    hyper_patch: int = 4
    hyper_window: Pair | None = None
    conditioned: bool = True
    linear: Linear = "cosine"
    published: bool = False
    scale_neurons: int = 64

    def __post_init__(self) -> None:
        for part in fields(self):
            if not _is_size(part.name, getattr(self, part.name)):
                raise ValueError(f"{part.name} cannot be {str(getattr(self, part.name))[:50]}")
        if self.conditioned and self.kernel != self.stride:
            raise ValueError(f"a linear path needs patches that do not overlap, got {self.kernel} every {self.stride}")
        if self.conditioned and self.published:
            raise ValueError("the published model knows of no step")
        if self.scale_neurons and not self.conditioned:
            raise ValueError("integer scales are those of a model that knows the step")
        if self.conditioned and self.latents > self.channels * self.kernel[0] * self.kernel[1]:
            raise ValueError(f"{self.latents} latents are more than the values of a {self.kernel} patch")
        if self.linear not in get_args(Linear):
            raise ValueError(f"linear must be one of {get_args(Linear)}, got {self.linear!r}")
        k = self.kernel[0]
        if self.linear == "wavelet" and (self.kernel != (k, k) or k & (k - 1) or self.latents != self.channels * k * k):
            raise ValueError(f"a wavelet needs square patches of 2**n cells and their values as latents, got {self}")


def _is_size(name: str, value: object) -> bool:
    """Return whether a part of a configuration has its type, and a size that a model can have."""
    if name in ("shift", "depthwise", "conditioned", "published"):
        return isinstance(value, bool)
    if name == "linear":
        return isinstance(value, str)
    if name == "mlp_ratio":
        return isinstance(value, int | float) and 0 < value <= _MOST_RATIO
    if name == "windows":
        return isinstance(value, tuple) and 0 < len(value) <= _MOST_BLOCKS and all(map(_is_pair, value))
    if name in ("kernel", "stride"):
        return _is_pair(value, _MOST_SIDE)
    if name in ("positions", "hyper_window"):
        return value is None or _is_pair(value)
    most = _MOST_BLOCKS if name in ("depth", "hyper_depth") else _MOST
    return type(value) is int and (name not in ("global_every", "scale_neurons")) <= value <= most


def _is_pair(value: object, most: int = _MOST) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(n) is int and 0 < n <= most for n in value)


# Geometry of CRA5 (arXiv 2405.03376; the windows, positions and the whole hyperprior as in its public repository,
# taohan10200/CRA5). Nothing was chosen here to reach the published 404.68 M parameters: this geometry has them.
CRA5_268 = PatchConfig(
    channels=268,
    kernel=(11, 10),
    stride=(10, 10),
    dim=1024,
    heads=16,
    depth=12,
    windows=((24, 24), (12, 48), (48, 12)),
    global_every=4,
    shift=False,
    depthwise=False,
    positions=(72, 144),
    latents=256,
    hyper_dim=360,
    hyper_heads=5,
    hyper_depth=4,
    hyper_hidden=256,
    hyper_latents=256,
    hyper_patch=4,
    conditioned=False,
    published=True,
    scale_neurons=0,
)

SMALL = PatchConfig(
    dim=128,
    heads=4,
    depth=2,
    hyper_dim=64,
    hyper_heads=2,
    hyper_depth=1,
    hyper_window=(4, 4),
    linear="wavelet",
)

# Winds, temperature and pressure near the ground, coded together.
FOUR: tuple[Name, ...] = (("u10", None), ("v10", None), ("t2m", None), ("msl", None))
SMALL_4 = replace(SMALL, channels=4, latents=256)

CONFIGS = {"cra5-268": CRA5_268, "small": SMALL, "small-4": SMALL_4}


@dataclass(frozen=True)
class ModelSpec:
    """A model to import or to train: its networks, its channels, and, where positions are fixed, the shape of fields;
    what its training does not do by default.

    Raises
    ------
    ArgumentError
        There are not as many names as channels.
    """

    config: PatchConfig
    channels: tuple[Name, ...]
    shape: Pair | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.channels) != self.config.channels or len(set(self.channels)) != len(self.channels):
            raise ArgumentError(f"{len(set(self.channels))} names for {self.config.channels} channels")


def spec_of(name: str) -> ModelSpec:
    """Return the specification `cra5-268` or `small-4`, or that in a TOML file.

    Such a file has `channels`, a list of names or of pairs of a name and a level, perhaps `shape`, and tables
    `network`, with what is not as in `PatchConfig`, and `training`, with what is not as in `ChannelTraining`.

    Raises
    ------
    ArgumentError
        There is no such file, or it is no specification.
    """
    if name == "cra5-268":
        return ModelSpec(CRA5_268, CRA5_CHANNELS, (721, 1440))
    if name == "small-4":
        return ModelSpec(SMALL_4, FOUR, training={"stage_two": "mixed", "stage_two_from": 0.0, "batch": 4})
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise ArgumentError(f"{name}: neither cra5-268, small-4 nor a TOML file")
    try:
        found = tomllib.loads(path.read_text())
        names = tuple((entry, None) if isinstance(entry, str) else _name(*entry) for entry in found.pop("channels"))
        shape = tuple_of(found.pop("shape", None))
        training = {key: tuple_of(value) for key, value in found.pop("training", {}).items()}
        network = {key: tuple_of(value) for key, value in found.pop("network", {}).items()}
        if not network.get("conditioned", True):
            network.setdefault("scale_neurons", 0)  # integer scales are those of models that know the step
        if unknown := [*found, *(set(network) - {part.name for part in fields(PatchConfig)})]:
            raise ArgumentError(f"{name}: {unknown[0]!r} is unknown")
        return ModelSpec(PatchConfig(**{**network, "channels": len(names)}), names, shape, training)
    except (ValueError, TypeError, KeyError) as error:
        raise ArgumentError(f"{name}: no specification of a model ({type(error).__name__}: {error})") from error


def tuple_of(value: Any) -> Any:
    """Return lists as tuples, inner ones too: JSON and TOML have no tuples."""
    return tuple(map(tuple_of, value)) if isinstance(value, list) else value


def _name(name: str, level: float) -> Name:
    return str(name), float(level)
