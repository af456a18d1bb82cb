"""The transformers of analysis and synthesis around the wavelet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isopress.codec.latent.corrector_v1 import CorrectorConfigV1, CorrectorV1
from isopress.codec.latent.synthesis import Corrector, CorrectorConfig
from isopress.codec.latent.wavelet import MAX_LEVELS
from isopress.codec.threads import in_team

F64 = NDArray[np.float64]


class Transforms(nn.Module):
    """Corrections before the wavelet (analysis) and after its inverse (synthesis), and the posterior's width.

    The posterior's standard deviation is learned per level and depends on the quality; only training uses it.
    """

    def __init__(self, config: CorrectorConfig | CorrectorConfigV1) -> None:
        super().__init__()
        self.config = config
        self.analysis, self.synthesis = _corrector(config), _corrector(config)
        self.log_variance = nn.Parameter(torch.stack([torch.full((MAX_LEVELS,), -2.5), torch.zeros(MAX_LEVELS)], 1))

    def posterior(self, level: int, spread: Tensor) -> Tensor:
        """Return the posterior's standard deviation (B, 1, 1, 1) in steps; `spread` (B,) as of a corrector."""
        constant, slope = self.log_variance[level]
        return torch.exp(0.5 * (constant + slope * spread)).clamp(0.02, 2).view(-1, 1, 1, 1)

    def analyse(self, field: F64, periodic: bool) -> F64:
        """Return a field (h, w) in steps with the correction of analysis added."""
        return self._corrected(self.analysis, field.copy(), periodic)

    def synthesise(self, field: F64, periodic: bool) -> F64:
        """Add the correction of synthesis to a decoded field (h, w) in steps, in place, and return it.

        Floats, and so not the same to the last bit on every machine: they are added, never looked at by contexts.
        """
        return self._corrected(self.synthesis, field, periodic)

    def _corrected(self, corrector: Corrector | CorrectorV1, field: F64, periodic: bool) -> F64:
        if not corrector.is_zero:
            _add_correction(corrector, torch.from_numpy(field), periodic)
        return field


@in_team
@torch.inference_mode()
def _add_correction(corrector: Corrector | CorrectorV1, field: Tensor, periodic: bool) -> None:
    spread = torch.log(field.std(correction=0) + 1e-3).float().reshape(1)
    x = (field - field.mean()).float()[None, None]
    field += corrector(x, spread, periodic)[0, 0]


def _corrector(config: CorrectorConfig | CorrectorConfigV1) -> Corrector | CorrectorV1:
    return CorrectorV1(config) if isinstance(config, CorrectorConfigV1) else Corrector(config)


def restore(config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.generic]]) -> Transforms:
    """Return stored transformers, ready to run."""
    transforms = Transforms(CorrectorConfig(**config) if "token" in config else CorrectorConfigV1(**config))
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()}
    transforms.load_state_dict(state, strict=False)
    there = {name.split(".")[0] for name in state}  # a corrector that is not there corrects nothing
    missing = {name for name, _ in transforms.named_parameters() if name.split(".")[0] in there} - set(state)
    if missing:
        raise ValueError(f"the weights lack {min(missing)}")
    return transforms.eval().requires_grad_(False)


def stored(transforms: Transforms) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return the shape of the transformers and their weights in half precision, without one that corrects nothing."""
    parts = {"analysis": transforms.analysis, "synthesis": transforms.synthesis}
    tensors = {
        f"{name}.{key}": value.detach().half().numpy()
        for name, corrector in parts.items()
        if not corrector.is_zero
        for key, value in corrector.state_dict().items()
    }
    return asdict(transforms.config), tensors
