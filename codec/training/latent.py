"""Training of the latent codec: contexts, then synthesis on the symbols that they code.

Both stages go on from checkpoints; the weights file is written anew after each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save

from isopress.codec.latent.correction import SynthesisConfig
from isopress.codec.latent.synthesis import Synthesis
from isopress.codec.latent.weights import KIND
from isopress.codec.training import contexts as train_contexts
from isopress.codec.training import synthesis as train_synthesis
from isopress.codec.training.contexts import ContextConfig, Trainable
from isopress.codec.training.loop import Progress, Report
from isopress.codec.training.pyramid_pool import Field
from isopress.codec.training.synthesis import SynthesisTraining

SCORE = "mean log2(cost per value)"  # what validations measure: bits, and squared steps of error by what a bit buys
CONTEXTS_PART = 0.4  # of the time


@dataclass(frozen=True)
class LatentConfig:
    """Everything that shapes a training; `minutes` of wall time on an idle machine, shared out to the stages."""

    minutes: float = 120.0
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    widths: tuple[int, ...] = (96, 64)
    threads: int = 2
    seed: int = 0


CONFIGS = {
    "small": LatentConfig(),
    "base": LatentConfig(
        minutes=1200.0,
        synthesis=SynthesisConfig(channels=96, dim=256, heads=8, blocks=8),
        widths=(160, 96),
    ),
}


def train(
    fields: Sequence[Field],
    validation: Sequence[Field],
    out: Path,
    config: LatentConfig,
    *,
    resume: bool = False,
    init: Path | None = None,
    report: Report = lambda progress: None,
) -> Progress:
    """Train a model and write it to `out` (safetensors); checkpoints of the stages lie beside it.

    Parameters
    ----------
    fields, validation : sequences of Field
        Only the first are learned from.
    resume : bool
        Go on from the checkpoints.
    init : Path, optional
        Weights (safetensors) to start from: contexts of the same widths, a synthesis of the same shape.
    """
    torch.set_num_threads(config.threads)
    what, synthesis = Trainable.build(config.widths), Synthesis(config.synthesis)
    if init is not None:
        tensors = load_file(init)
        with safe_open(init, "np") as file:
            shape = json.loads(file.metadata()["synthesis"])
        what, synthesis = Trainable.restore(tensors, config.widths), Synthesis.restore(shape, tensors)
    first, second = (out.with_suffix(f".{stage}.ckpt") for stage in ("contexts", "synthesis"))
    contexts = ContextConfig(CONTEXTS_PART * config.minutes, config.widths, threads=config.threads, seed=config.seed)
    what, before = train_contexts.train(
        fields, validation, first, contexts, start=what, resume=resume and first.exists(), report=report
    )
    write(out, what, synthesis)
    around = SynthesisTraining((1 - CONTEXTS_PART) * config.minutes, synthesis.config, seed=config.seed)
    synthesis, after = train_synthesis.train(
        fields, validation, what.model(), second, around, start=synthesis, resume=resume and second.exists(),
        report=lambda progress: report(_joined(before, progress)),
    )  # fmt: skip
    write(out, what, synthesis)
    return _joined(before, after)


def _joined(before: Progress, after: Progress) -> Progress:
    """Return the progress of both stages: the second's curve begins where the first one's ended."""
    shift = before.validation[-1][1] - after.validation[0][1]
    validation = before.validation + [(before.seconds + s, score + shift) for s, score in after.validation]
    return replace(
        after, seconds=before.seconds + after.seconds, rounds=before.rounds + after.rounds, validation=validation
    )


def write(out: Path, contexts: Trainable, synthesis: Synthesis) -> None:
    """Write a weights file."""
    shape, floats = synthesis.stored()
    tensors = {name: np.ascontiguousarray(value) for name, value in (contexts.tensors() | floats).items()}
    out.write_bytes(save(tensors, metadata={"kind": KIND, "synthesis": json.dumps(shape)}))
